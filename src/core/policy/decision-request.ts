/** A request as people write it down: one JSON line of `policy decide`, or `request` of a PolicyTest. */
import { EveryhopError } from "../base/errors.ts";

export interface DecisionRequest {
  readonly id: string | number | null;
  readonly source: {
    readonly principal: string | null;
    readonly ip: string | null;
    readonly remoteIp: string | null;
  };
  readonly destination: {
    readonly namespace: string;
    readonly name: string | null;
    readonly labels: Readonly<Record<string, string>>;
    readonly serviceAccount: string | null;
    readonly ip: string | null;
    readonly port: number | null;
    readonly sni: string | null;
  };
  /** Null for a TCP connection. */
  readonly request: RequestPart | null;
}

export interface RequestPart {
  readonly method: string | null;
  /** As received, with its query. */
  readonly path: string | null;
  readonly host: string | null;
  /** `host: null` was written: there is no Host header at all. */
  readonly withoutHost: boolean;
  readonly http2: boolean;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, readonly string[]>;
  readonly auth: AuthPart | null;
  readonly token: string | null;
}

/** Claims already validated. */
export interface AuthPart {
  readonly issuer: string | null;
  readonly subject: string | null;
  readonly audiences: readonly string[] | null;
  readonly presenter: string | null;
  readonly claims: Readonly<Record<string, unknown>>;
}

type Json = Readonly<Record<string, unknown>>;

/** Reads a parsed JSON value; throws `invalid-argument` with the field that is wrong. Unknown keys are let be. */
export function readDecisionRequest(value: unknown): DecisionRequest {
  const root = mapping(value, "the line") ?? fail("the line", "a mapping", value);
  const source = mapping(root.source, "source") ?? {};
  const destination = mapping(root.destination, "destination") ?? {};
  const request = mapping(root.request, "request");
  return {
    id: readId(root.id),
    source: {
      principal: text(source.principal, "source.principal"),
      ip: text(source.ip, "source.ip"),
      remoteIp: text(source.remoteIp, "source.remoteIp"),
    },
    destination: {
      namespace: text(destination.namespace, "destination.namespace") ?? "default",
      name: text(destination.name, "destination.name"),
      labels: readLabels(destination.labels),
      serviceAccount: text(destination.serviceAccount, "destination.serviceAccount"),
      ip: text(destination.ip, "destination.ip"),
      port: readPort(destination.port),
      sni: text(destination.sni, "destination.sni"),
    },
    request: request === null ? null : readRequestPart(request),
  };
}

function readRequestPart(request: Json): RequestPart {
  const auth = mapping(request.auth, "request.auth");
  return {
    method: text(request.method, "request.method"),
    path: text(request.path, "request.path"),
    host: text(request.host, "request.host"),
    withoutHost: request.host === null,
    http2: request.version === "2" || request.version === 2 || request.version === "HTTP/2",
    headers: readHeaders(mapping(request.headers, "request.headers") ?? {}),
    auth:
      auth === null
        ? null
        : {
            issuer: text(auth.issuer, "request.auth.issuer"),
            subject: text(auth.subject, "request.auth.subject"),
            audiences: readAudiences(auth.audiences),
            presenter: text(auth.presenter, "request.auth.presenter"),
            claims: mapping(auth.claims, "request.auth.claims") ?? {},
          },
    token: text(request.token, "request.token"),
  };
}

const readId = (value: unknown): DecisionRequest["id"] =>
  typeof value === "string" || typeof value === "number" ? value : null;

/** The id of a line that is otherwise wrong, as far as it can be read. */
export function idOf(value: unknown): DecisionRequest["id"] {
  return typeof value === "object" && value !== null && "id" in value ? readId(value.id) : null;
}

function fail(what: string, expected: string, value: unknown): never {
  const found = value === null ? "null" : Array.isArray(value) ? "a list" : typeof value;
  throw new EveryhopError("invalid-argument", `\`${what}\` should be ${expected}, found ${found}`);
}

const absent = (value: unknown): value is undefined | null => value === undefined || value === null;

function mapping(value: unknown, what: string): Json | null {
  if (absent(value)) {
    return null;
  }
  return typeof value === "object" && !Array.isArray(value) ? (value as Json) : fail(what, "a mapping", value);
}

function text(value: unknown, what: string): string | null {
  return absent(value) ? null : typeof value === "string" ? value : fail(what, "text", value);
}

function texts(value: unknown, what: string): readonly string[] {
  if (typeof value === "string") {
    return [value];
  }
  if (!Array.isArray(value)) {
    return fail(what, "text or a list of texts", value);
  }
  return value.map((item, index) => text(item, `${what}[${index}]`) ?? fail(`${what}[${index}]`, "text", item));
}

const readAudiences = (value: unknown): readonly string[] | null =>
  absent(value) ? null : texts(value, "request.auth.audiences");

function readPort(value: unknown): number | null {
  if (absent(value)) {
    return null;
  }
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 65_535
    ? value
    : fail("destination.port", "a port number", value);
}

function readLabels(value: unknown): Readonly<Record<string, string>> {
  const labels = mapping(value, "destination.labels") ?? {};
  return Object.fromEntries(
    Object.entries(labels).map(([name, label]) => [name, text(label, `destination.labels.${name}`) ?? ""]),
  );
}

function readHeaders(headers: Json): ReadonlyMap<string, readonly string[]> {
  const result = new Map<string, readonly string[]>();
  for (const [name, value] of Object.entries(headers)) {
    const lower = name.toLowerCase();
    result.set(lower, [...(result.get(lower) ?? []), ...texts(value, `request.headers.${name}`)]);
  }
  return result;
}
