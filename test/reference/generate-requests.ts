/** Random requests and connections: half of them made so that a rule of the policies may match, or nearly does. */
import type { Document, Ports } from "./generate-policies.ts";
import type { Random } from "./random.ts";
import {
  CLAIM_VALUES,
  HEADER_VALUES,
  HEADERS,
  HOSTS,
  ISSUERS,
  instanceOf,
  METHODS,
  near,
  PATHS,
  PRINCIPALS,
  REMOTE_IPS,
  SNIS,
  SOURCE_IPS,
  SUBJECTS,
} from "./vocabulary.ts";

export type Line = Record<string, unknown> & {
  source: Record<string, unknown>;
  destination: Record<string, unknown>;
  request?: Record<string, unknown>;
  /** Claims of a token that is minted for this request, and how. */
  mint?: Mint;
};

export interface Mint {
  readonly claims: Readonly<Record<string, unknown>>;
  readonly key: "good" | "other";
  readonly place: "authorization" | "x-token" | "x-token T" | "cookie" | "access_token" | "tok";
}

export interface RequestOptions {
  readonly ports: Ports;
  /** Tokens to be validated, instead of claims that are. */
  readonly tokens: boolean;
  readonly destinationIp: string;
}

interface Hints {
  readonly source: Readonly<Record<string, readonly string[]>>;
  readonly operation: Readonly<Record<string, readonly string[]>>;
  readonly when: readonly { readonly key: string; readonly values?: readonly string[] }[];
}

const NONE: Hints = { source: {}, operation: {}, when: [] };

/** Parts of a rule of the policies. */
function hintsOf(random: Random, documents: readonly Document[]): Hints {
  const rules = documents.flatMap(({ spec }) => (spec.rules as Record<string, never>[] | undefined) ?? []);
  if (rules.length === 0 || random.chance(0.3)) {
    return NONE;
  }
  const {
    from = [],
    to = [],
    when = [],
  } = random.pick(rules) as unknown as {
    from?: { source: Hints["source"] }[];
    to?: { operation: Hints["operation"] }[];
    when?: Hints["when"];
  };
  return {
    source: from.length === 0 ? {} : random.pick(from).source,
    operation: to.length === 0 ? {} : random.pick(to).operation,
    when,
  };
}

/** A value that the hinted patterns mean, one near it, or any of the pool. */
function valueFor(random: Random, patterns: readonly string[] | undefined, pool: readonly string[]): string {
  if (patterns === undefined || random.chance(0.15)) {
    return random.pick(pool);
  }
  const value = instanceOf(random, random.pick(patterns));
  return random.chance(0.12) ? near(random, value) : value;
}

/** Only what is a SPIFFE ID can come in a certificate. */
function principalFor(random: Random, hints: Hints): string {
  const wanted = hints.source.principals ?? hints.when.find(({ key }) => key === "source.principal")?.values;
  const value = valueFor(random, wanted, PRINCIPALS);
  return /^[a-z0-9.-]+(\/[A-Za-z0-9._-]+)+$/.test(value) ? value : random.pick(PRINCIPALS);
}

const DETOURS: readonly ((path: string) => string)[] = [
  (path) => `/x/..${path}`,
  (path) => `/.${path}`,
  (path) => `/${path}`,
  (path) => path.replace(/\/([^/]*)$/, "//$1"),
  (path) => path.replace("/a", "/%61"),
  (path) => `${path}?q=1`,
  (path) => `${path}?x=/../y#f`,
  (path) => `${path}#frag`,
  (path) => `${path}/`,
  (path) => `${path}/.`,
  (path) => `${path}/x/..`,
  (path) => `${path};p=1`,
  (path) => path.replace(/\//g, "\\").replace("\\", "/"),
  (path) => path.replace(/(.)\//, "$1%2F"),
  (path) => path.replace(/(.)\//, "$1%5c"),
  (path) => `/x/%2e%2e${path}`,
  (path) => `/x/..;v=1${path}`,
  (path) => `/x/%2e%2e;${path}`,
  (path) => `${path}%`,
  (path) => `${path}%zz`,
  (path) => `${path}%%41b`,
  (path) => `${path}%00`,
  (path) => `${path}"<>^\`{|}`,
  (path) => `${path}é`,
  (path) => `http://shop.prod${path}`,
  (path) => `HTTPS://u:p@SHOP.prod:080${path}`,
  (path) => `http://${path}`,
  (path) => `http://shop:65536${path}`,
  (path) => `/x%2F..%2f${path.slice(1)}`,
  (path) => `${path}?access_token=abc`,
];

function pathFor(random: Random, hints: Hints): string {
  const wanted = hints.operation.paths ?? hints.when.find(({ key }) => key === "request.headers[:path]")?.values;
  let path = valueFor(random, wanted, PATHS);
  path = path.startsWith("/") ? path : `/${path}`;
  for (let count = random.chance(0.35) ? random.int(1, 2) : 0; count > 0; count--) {
    path = random.pick(DETOURS)(path);
  }
  return path;
}

function headersFor(random: Random, hints: Hints): Record<string, string[]> {
  const headers: Record<string, string[]> = {};
  for (const { key, values } of hints.when) {
    const name = /^request\.headers\[([A-Za-z-]+)\]$/.exec(key)?.[1]?.toLowerCase();
    if (name !== undefined && values !== undefined && !["host", "connection", "x-forwarded-for"].includes(name)) {
      headers[name] = [valueFor(random, values, HEADER_VALUES)];
    }
  }
  for (let count = random.int(0, 2); count > 0; count--) {
    headers[random.pick(HEADERS)] = random.many(1, 3, () => random.pick(HEADER_VALUES));
  }
  if (random.chance(0.1)) {
    const [name, values] = random.pick(ODD_HEADERS);
    headers[name] = [...values];
  }
  for (const [name, values] of Object.entries(headers)) {
    headers[name] = values.map((value) => value.replace(/^[ \t]+|[ \t]+$/g, ""));
  }
  return headers;
}

const ODD_HEADERS: readonly (readonly [string, readonly string[]])[] = [
  ["te", ["trailers"]],
  ["te", ["gzip"]],
  ["authorization", ["Basic abc"]],
  ["authorization", ["bearer abc"]],
  ["x-forwarded-proto", ["https"]],
  ["x-forwarded-for", ["10.1.2.3, 203.0.113.7"]],
  ["x-forwarded-for", ["203.0.113.7", "unknown"]],
  ["x-forwarded-for", ["2001:db8::1"]],
  ["x-request-id", ["abc"]],
  ["x-envoy-internal", ["true"]],
  ["referer", ["https://shop.prod/x"]],
  ["x-forwarded-client-cert", ["By=forged"]],
  ["access-control-request-method", ["GET"]],
];

function claimsFor(random: Random, hints: Hints): Record<string, unknown> {
  const claims: Record<string, unknown> = {};
  const value = (values?: readonly string[]): unknown => {
    const text = () => valueFor(random, values, CLAIM_VALUES);
    switch (
      random.weighted({ text: 46, list: 30, number: 6, boolean: 4, nothing: 3, object: 4, nested: 4, mixed: 3 })
    ) {
      case "text":
        return text();
      case "list":
        return random.many(0, 3, text);
      case "number":
        return random.pick([7, 0, -1, 1.5]);
      case "boolean":
        return random.chance(0.5);
      case "nothing":
        return null;
      case "object":
        return { admin: text(), roles: text() };
      case "nested":
        return [[text()], text()];
      case "mixed":
        return [7, text(), true, null];
    }
  };
  for (const { key, values } of hints.when) {
    const names = /^request\.auth\.claims\[(.*)\]$/.exec(key)?.[1]?.split("][");
    if (names?.length === 2) {
      claims[names[0] as string] = { [names[1] as string]: value(values) };
    } else if (names !== undefined && !["aud", "iss"].includes(names[0] as string)) {
      claims[names[0] as string] = value(values);
    }
  }
  for (let count = random.int(0, 2); count > 0; count--) {
    claims[random.pick(["groups", "scope", "permission", "role", "n", "a.b", "realm"])] = value();
  }
  return claims;
}

function identityClaims(random: Random, hints: Hints): { issuer?: string; subject?: string } {
  const wanted = hints.source.requestPrincipals;
  if (wanted !== undefined && random.chance(0.7)) {
    const value = instanceOf(random, random.pick(wanted));
    const slash = value.lastIndexOf("/");
    return slash === -1
      ? { issuer: random.pick(ISSUERS), subject: value }
      : { issuer: value.slice(0, slash), subject: value.slice(slash + 1) };
  }
  return {
    ...(random.chance(0.95) ? { issuer: random.pick(ISSUERS) } : {}),
    ...(random.chance(0.9) ? { subject: random.pick(SUBJECTS) } : {}),
  };
}

function withAuth(random: Random, hints: Hints, line: Line): void {
  const { issuer, subject } = identityClaims(random, hints);
  const audiences = random.chance(0.5)
    ? random.many(0, 2, () => random.pick(["shop", "bank", "x", "shop*"]))
    : undefined;
  const presenter = random.chance(0.4) ? random.pick(["web", "web2", "cli"]) : undefined;
  (line.request as Record<string, unknown>).auth = {
    ...(issuer === undefined ? {} : { issuer }),
    ...(subject === undefined ? {} : { subject }),
    ...(audiences === undefined ? {} : { audiences }),
    ...(presenter === undefined ? {} : { presenter }),
    claims: claimsFor(random, hints),
  };
}

function withToken(random: Random, hints: Hints, line: Line): void {
  const { issuer, subject } = identityClaims(random, hints);
  const times = random.pick<Record<string, unknown>>([
    {},
    {},
    {},
    { exp: 4_102_444_800 },
    { exp: 1_500_000_000 },
    { nbf: 4_102_444_800 },
    { iat: 1_500_000_000, exp: 4_102_444_800.5 },
    { exp: "4102444800" },
  ]);
  line.mint = {
    claims: {
      ...claimsFor(random, hints),
      ...(issuer === undefined ? {} : { iss: issuer }),
      ...(subject === undefined ? {} : { sub: subject }),
      ...(random.chance(0.7)
        ? { aud: random.pick<unknown>(["shop", "bank", ["x", "shop"], ["bank"], "https://shop"]) }
        : {}),
      ...times,
    },
    key: random.chance(0.9) ? "good" : "other",
    place: random.weighted({ authorization: 60, "x-token": 8, "x-token T": 10, cookie: 8, access_token: 8, tok: 6 }),
  };
}

function httpPart(random: Random, hints: Hints): Record<string, unknown> {
  const method = valueFor(random, hints.operation.methods, METHODS);
  const host = valueFor(random, hints.operation.hosts, HOSTS);
  return {
    method: METHODS.includes(method) || random.chance(0.1) ? method || "GET" : random.pick(METHODS),
    path: pathFor(random, hints),
    host: /^[A-Za-z0-9.:[\]-]+$/.test(host) || (random.chance(0.2) && /^[\x20-\x7e]+$/.test(host)) ? host : "shop",
    headers: headersFor(random, hints),
  };
}

export function requestLine(random: Random, documents: readonly Document[], options: RequestOptions): Line {
  const hints = hintsOf(random, documents);
  const isHttp = random.chance(0.8);
  const isMutual = random.chance(0.65);
  const line: Line = {
    source: {
      ip: random.pick(SOURCE_IPS),
      ...(isMutual ? { principal: principalFor(random, hints) } : {}),
      ...(isHttp && random.chance(0.3) ? { remoteIp: random.pick(REMOTE_IPS) } : {}),
    },
    destination: {
      namespace: "prod",
      name: "shop",
      labels: { app: "shop", version: "v1" },
      ip: options.destinationIp,
      port: isHttp ? options.ports.http : options.ports.tcp,
      ...(isMutual && random.chance(0.5) ? { sni: random.pick(SNIS) } : {}),
    },
  };
  if (isHttp) {
    line.request = httpPart(random, hints);
    if ("remoteIp" in line.source) {
      delete (line.request.headers as Record<string, unknown>)["x-forwarded-for"];
    }
    if (random.chance(0.5)) {
      (options.tokens ? withToken : withAuth)(random, hints, line);
    }
  }
  return line;
}
