/** Random resources: every kind, field, condition key and string form, a little wrong now and then but legal. */
import type { Random } from "./random.ts";
import {
  ACCOUNTS,
  CLAIM_VALUES,
  CLAIMS,
  HEADER_VALUES,
  HEADERS,
  HOSTS,
  IP_BLOCKS,
  ISSUERS,
  METHODS,
  NAMESPACES,
  PATHS,
  PRINCIPALS,
  patternOf,
  SNIS,
  SUBJECTS,
  TEMPLATES,
  TRUST_DOMAINS,
} from "./vocabulary.ts";

export interface Ports {
  readonly http: number;
  readonly tcp: number;
}

/** A resource as Istio writes it. */
export interface Document {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly spec: Readonly<Record<string, unknown>>;
}

type Fields = Record<string, readonly string[]>;

type Values = (random: Random, ports: Ports) => string;

const principal: Values = (random) => patternOf(random, random.pick(PRINCIPALS));
const namespace: Values = (random) => {
  const value = random.pick(NAMESPACES);
  return random.chance(0.2) ? value.replace(/^(.*)(.)$/, "$1*$2") : patternOf(random, value);
};
const account: Values = (random) =>
  random.chance(0.3) ? random.pick(ACCOUNTS) : `${random.pick(NAMESPACES)}/${random.pick(ACCOUNTS)}`;
/** At most one star, at one end: admission says so. */
const trustDomain: Values = (random) => {
  const value = random.pick(TRUST_DOMAINS);
  const at = random.int(0, value.length);
  return random.pick([value, value, "*", `${value.slice(0, at)}*`, `*${value.slice(at)}`]);
};
const address: Values = (random) => random.pick(IP_BLOCKS);
const requestPrincipal: Values = (random) => {
  const value = `${random.pick(ISSUERS)}/${random.pick(SUBJECTS)}`;
  return random.chance(0.2)
    ? random.pick(["*/*", "*", "i/*", "*/alice", "issuer", "issuer*", "*ice", "*issuer/*", "https://i.example/r/al*"])
    : patternOf(random, value);
};
const host: Values = (random) => patternOf(random, random.pick(HOSTS));
const method: Values = (random) => patternOf(random, random.pick(METHODS));
const path: Values = (random) =>
  random.chance(0.25) ? random.pick(TEMPLATES) : patternOf(random, random.pick(PATHS)).replaceAll(/[{}]/g, "");
const port: Values = (random, ports) =>
  random.pick([String(ports.http), String(ports.tcp), `0${ports.http}`, "9090", "0"]);

const SOURCE_VALUES: Readonly<Record<string, Values>> = {
  principals: principal,
  requestPrincipals: requestPrincipal,
  namespaces: namespace,
  serviceAccounts: account,
  trustDomains: trustDomain,
  ipBlocks: address,
  remoteIpBlocks: address,
};

const OPERATION_VALUES: Readonly<Record<string, Values>> = { hosts: host, methods: method, paths: path, ports: port };

const negative = (field: string): string => `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;

/** Fields that a CUSTOM policy cannot have. */
const NOT_FOR_CUSTOM = ["principals", "requestPrincipals", "namespaces", "serviceAccounts", "trustDomains"];

function fields(
  random: Random,
  table: Readonly<Record<string, Values>>,
  ports: Ports,
  names: readonly string[],
): Fields {
  const result: Fields = {};
  for (let count = random.int(1, 3); count > 0; count--) {
    const field = random.pick(names);
    const make = table[field] as Values;
    const name = random.chance(0.22) ? negative(field) : field;
    result[name] = random.many(1, 3, () => make(random, ports));
  }
  if (Object.keys(result).some((name) => /erviceAccounts$/.test(name))) {
    for (const other of ["principals", "namespaces"]) {
      delete result[other];
      delete result[negative(other)];
    }
  }
  return result;
}

function source(random: Random, ports: Ports, custom: boolean): Fields {
  const names = Object.keys(SOURCE_VALUES).filter((name) => !custom || !NOT_FOR_CUSTOM.includes(name));
  return fields(random, SOURCE_VALUES, ports, names);
}

const headerValue: Values = (random) => patternOf(random, random.pick(HEADER_VALUES));
const claimValue: Values = (random) => patternOf(random, random.pick(CLAIM_VALUES));

const CONDITIONS: Readonly<Record<string, readonly [weight: number, values: Values]>> = {
  "source.ip": [2, address],
  "remote.ip": [2, address],
  "source.namespace": [2, namespace],
  "source.serviceAccount": [2, account],
  "source.principal": [2, principal],
  "source.trustDomain": [2, trustDomain],
  "request.auth.principal": [2, requestPrincipal],
  "request.auth.audiences": [2, (random) => patternOf(random, random.pick(["shop", "bank", "x"]))],
  "request.auth.presenter": [2, (random) => patternOf(random, random.pick(["web", "web2", "cli"]))],
  "destination.ip": [1, address],
  "destination.port": [1, port],
  "connection.sni": [2, (random) => patternOf(random, random.pick(SNIS))],
  "request.headers[:path]": [1, path],
  "request.headers[:method]": [1, method],
  "request.headers[:authority]": [1, host],
  "request.headers[Host]": [1, host],
  "request.headers[:scheme]": [1, (random) => random.pick(["http", "https", "*", "h*"])],
  "request.headers[x-forwarded-proto]": [1, (random) => random.pick(["http", "https", "*"])],
  "request.headers[x-request-id]": [1, () => "*"],
  "request.headers[x-forwarded-for]": [1, (random) => patternOf(random, random.pick(["203.0.113.7", "10.1.2.3"]))],
  "request.headers[authorization]": [1, (random) => random.pick(["*", "Basic*", "Bearer*"])],
  "request.headers[te]": [1, (random) => random.pick(["*", "trailers"])],
  "request.headers[connection]": [1, () => "*"],
  "request.headersx[y]": [1, headerValue],
  "request.headers[ x ]": [0.5, headerValue],
  "request.headers[a][b]": [0.5, headerValue],
  "experimental.envoy.filters.http.none[k]": [1, headerValue],
  "request.auth.claims[realm][roles]": [2, claimValue],
  "request.auth.claims[realm][scope]": [1, claimValue],
  "request.auth.claims[realm.roles]": [1, claimValue],
};

function conditionKey(random: Random): { readonly key: string; readonly values: Values } {
  const kind = random.weighted({ header: 30, claim: 25, other: 45 });
  if (kind === "header") {
    const name = random.pick(HEADERS);
    return { key: `request.headers[${random.chance(0.2) ? name.toUpperCase() : name}]`, values: headerValue };
  }
  if (kind === "claim") {
    return { key: `request.auth.claims[${random.pick(CLAIMS)}]`, values: claimValue };
  }
  const key = random.weighted(Object.fromEntries(Object.entries(CONDITIONS).map(([name, [weight]]) => [name, weight])));
  return { key, values: (CONDITIONS[key] as readonly [number, Values])[1] };
}

function condition(random: Random, ports: Ports, custom: boolean): Record<string, unknown> {
  let chosen = conditionKey(random);
  while (custom && /^source\.(n|s|p|t)|^request\.auth/.test(chosen.key)) {
    chosen = conditionKey(random);
  }
  const list = () => random.many(1, 3, () => chosen.values(random, ports) || "x");
  const form = random.weighted({ values: 70, notValues: 20, both: 10 });
  return {
    key: chosen.key,
    ...(form === "notValues" ? {} : { values: list() }),
    ...(form === "values" ? {} : { notValues: list() }),
  };
}

function rule(random: Random, ports: Ports, custom: boolean): Record<string, unknown> {
  const from = random.chance(0.5) ? random.many(1, 2, () => ({ source: source(random, ports, custom) })) : [];
  const to = random.chance(0.55)
    ? random.many(1, 2, () => ({
        operation: fields(random, OPERATION_VALUES, ports, Object.keys(OPERATION_VALUES)),
      }))
    : [];
  const when = random.chance(0.35) ? random.many(1, 2, () => condition(random, ports, custom)) : [];
  return {
    ...(from.length > 0 ? { from } : {}),
    ...(to.length > 0 ? { to } : {}),
    ...(when.length > 0 ? { when } : {}),
  };
}

const SELECTORS = [
  undefined,
  undefined,
  undefined,
  undefined,
  { matchLabels: { app: "shop" } },
  { matchLabels: { app: "shop" } },
  { matchLabels: { app: "shop", version: "v1" } },
  { matchLabels: { app: "shop", version: "v2" } },
  { matchLabels: { app: "cart" } },
  {},
];

const metadata = (random: Random, name: string): Record<string, unknown> => ({
  name,
  namespace: random.weighted({ prod: 72, "istio-system": 20, other: 8 }),
});

const selectorOf = (random: Random): Record<string, unknown> => {
  const selector = random.pick(SELECTORS);
  return selector === undefined ? {} : { selector };
};

const API_VERSIONS = ["security.istio.io/v1", "security.istio.io/v1", "security.istio.io/v1beta1"];

export function authorizationPolicy(random: Random, ports: Ports, name: string): Document {
  const action = random.weighted({ ALLOW: 46, DENY: 34, AUDIT: 10, CUSTOM: 10 });
  const dry = (action === "ALLOW" || action === "DENY") && random.chance(0.18);
  const least = action === "DENY" || action === "CUSTOM" ? 1 : 0;
  const rules = random.many(random.chance(0.1) ? least : 1, 3, () => rule(random, ports, action === "CUSTOM"));
  const targets = random.chance(0.02) ? { targetRefs: [{ kind: "Service", name: "shop" }] } : selectorOf(random);
  return {
    apiVersion: random.pick(API_VERSIONS),
    kind: "AuthorizationPolicy",
    metadata: {
      ...metadata(random, name),
      ...(dry ? { annotations: { "istio.io/dry-run": random.pick(["true", "TRUE", "1", "t"]) } } : {}),
    },
    spec: {
      ...targets,
      ...(action === "ALLOW" && random.chance(0.5) ? {} : { action }),
      ...(action === "CUSTOM" ? { provider: { name: random.pick(["p1", "p2"]) } } : {}),
      ...(rules.length > 0 ? { rules } : {}),
    },
  };
}

const MODES = ["STRICT", "PERMISSIVE", "PERMISSIVE", "DISABLE", "UNSET"];

export function peerAuthentication(random: Random, ports: Ports, name: string): Document {
  const selector = random.pick(SELECTORS);
  const labels = Object.keys((selector?.matchLabels as object | undefined) ?? {}).length > 0;
  const port = () => ({ mode: random.pick(MODES) });
  return {
    apiVersion: random.pick(API_VERSIONS),
    kind: "PeerAuthentication",
    metadata: metadata(random, name),
    spec: {
      ...(selector === undefined ? {} : { selector }),
      ...(random.chance(0.8) ? { mtls: { mode: random.pick(MODES) } } : {}),
      ...(labels && random.chance(0.6)
        ? { portLevelMtls: { [ports.http]: port(), ...(random.chance(0.5) ? { [ports.tcp]: port() } : {}) } }
        : {}),
    },
  };
}

/** What makes a token be looked for elsewhere, or become a header. */
const PLACES: readonly Record<string, unknown>[] = [
  {},
  {},
  {},
  { fromHeaders: [{ name: "X-Token", prefix: "T " }] },
  { fromHeaders: [{ name: "x-token" }], fromParams: ["tok"] },
  { fromCookies: ["tok"] },
  { fromParams: ["access_token"] },
];

export function requestAuthentication(random: Random, jwks: string, name: string): Document {
  const jwtRules = random.many(1, 2, () => ({
    issuer: random.pick(ISSUERS),
    jwks,
    ...(random.chance(0.4)
      ? { audiences: random.many(1, 2, () => random.pick(["shop", "bank", "https://shop/"])) }
      : {}),
    ...random.pick(PLACES),
    ...(random.chance(0.2) ? { forwardOriginalToken: true } : {}),
    ...(random.chance(0.25)
      ? { outputClaimToHeaders: [{ header: "x-group", claim: random.pick(["groups", "n", "realm.roles"]) }] }
      : {}),
    ...(random.chance(0.2) ? { spaceDelimitedClaims: ["role"] } : {}),
  }));
  return {
    apiVersion: "security.istio.io/v1",
    kind: "RequestAuthentication",
    metadata: metadata(random, name),
    spec: { ...selectorOf(random), jwtRules },
  };
}
