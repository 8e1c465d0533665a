/** What an inbound sidecar knows of a request line: the connection, and the request as policies see it. */
import { isAddress } from "./attributes.ts";
import { normalizeSlowly } from "./normalize.ts";

export type Claims = Readonly<Record<string, unknown>>;

export interface Facts {
  readonly principal: string | null;
  readonly sourceIp: string | null;
  readonly remoteIp: string | null;
  readonly destinationIp: string | null;
  readonly port: number;
  readonly sni: string | null;
  readonly method: string | null;
  /** With its query. */
  path: string | null;
  readonly host: string | null;
  readonly headers: Map<string, string[]>;
  /** The lines of a header. */
  header(name: string): readonly string[];
  claims: Claims | null;
}

/** A line of `policy decide`. */
export interface Given {
  readonly source?: { readonly principal?: string; readonly ip?: string; readonly remoteIp?: string };
  readonly destination?: {
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly ip?: string;
    readonly port?: number;
    readonly sni?: string;
  };
  readonly request?: {
    readonly method?: string;
    readonly path?: string;
    readonly host?: string;
    readonly headers?: Readonly<Record<string, readonly string[]>>;
    readonly auth?: {
      readonly issuer?: string;
      readonly subject?: string;
      readonly audiences?: readonly string[];
      readonly presenter?: string;
      readonly claims?: Claims;
    };
    readonly token?: string;
  };
}

/** Methods of HTTP/1.1 that Envoy knows, as far as the generator uses them. */
const METHODS = /^(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|PROPFIND|TRACE|CONNECT)$/;

/** Headers that are one value: several lines are joined while the request is read. */
const JOINED = new Set(
  (
    "accept accept-encoding access-control-request-headers access-control-request-method " +
    "access-control-request-private-network authentication authorization cache-control content-encoding content-type " +
    "expect grpc-accept-encoding grpc-timeout if-match if-modified-since if-none-match if-range if-unmodified-since " +
    "origin pragma referer user-agent via x-client-trace-id x-envoy-attempt-count x-envoy-decorator-operation " +
    "x-envoy-original-path x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id te"
  ).split(" "),
);

/** Taken away before any policy looks. */
const HIDDEN = /^(connection|keep-alive|x-envoy-(retry-on|expected-rq-timeout-ms|upstream-rq-timeout-ms|internal))$/;

const wire = (text: string): string => Buffer.from(text, "utf8").toString("latin1");

function headersOf(line: Given, remoteIp: string | null): Map<string, string[]> {
  const headers = new Map<string, string[]>();
  for (const [given, values] of Object.entries(line.request?.headers ?? {})) {
    const name = given.toLowerCase();
    const lines = values.map(wire);
    if (HIDDEN.test(name) || lines.length === 0) {
      continue;
    }
    const isJoined = JOINED.has(name) && lines.length > 1;
    const kept = isJoined ? [lines.filter((value) => value !== "").join(",")] : lines;
    if (name !== "te") {
      headers.set(name, kept);
    } else if (kept[0] === "" || /(^|,)[ \t]*trailers[ \t]*(,|$)/.test(kept[0] as string)) {
      headers.set(name, [kept[0] === "" ? "" : "trailers"]);
    }
  }
  const isMutual = line.source?.principal !== undefined;
  headers.set("x-request-id", headers.get("x-request-id") ?? ["made"]);
  headers.set("x-forwarded-proto", headers.get("x-forwarded-proto") ?? [isMutual ? "https" : "http"]);
  headers.delete("x-forwarded-client-cert");
  if (isMutual) {
    headers.set("x-forwarded-client-cert", ["By=us"]);
  }
  if (remoteIp !== null && !headers.has("x-forwarded-for")) {
    headers.set("x-forwarded-for", [remoteIp]);
  }
  if (line.request?.token !== undefined) {
    headers.set("authorization", [[...(headers.get("authorization") ?? []), `Bearer ${line.request.token}`].join(",")]);
  }
  return headers;
}

/** The address in front of the proxies: what was told, else the last entry of X-Forwarded-For, else the peer. */
function remoteAddress(line: Given, headers: Map<string, string[]>): string | null {
  const last = (headers.get("x-forwarded-for") ?? []).join(",").split(",").at(-1)?.trim() ?? "";
  return line.source?.remoteIp ?? (isAddress(last) ? last : (line.source?.ip ?? null));
}

/** `http://user@host:80/path`: host and path of the target count, the user does not. Null where it is no URL. */
function targetOf({ path, host }: { readonly path?: string; readonly host?: string }) {
  const absolute = /^(https?):\/\/([^/?]*)(.*)$/is.exec(path ?? "");
  if (absolute === null) {
    return /[^\w.~!$&'()*+,;=:@%[\]-]/.test(host ?? "") ? null : { path, host, scheme: null };
  }
  const [, scheme = "", authority = "", rest = ""] = absolute;
  const own = authority.replace(/^[\w.!~*'()%;:&=+$,-]*@/, "");
  const [, port] = /^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])(?::(\d+))?$/.exec(own) ?? [null, "none"];
  return port === "none" || Number(port ?? 0) > 65_535
    ? null
    : { path: rest || "/", host: own, scheme: scheme.toLowerCase() };
}

/** Facts of a line; null where the request itself is answered 400. */
export function factsOf(line: Given, mode: Parameters<typeof normalizeSlowly>[1]): Facts | null {
  const { source, destination, request } = line;
  const headers = headersOf(line, source?.remoteIp ?? null);
  const host = request?.host?.replace(/^[ \t]+|[ \t]+$/g, "");
  const target = targetOf({ ...request, ...(host === undefined ? {} : { host }) });
  if (target === null) {
    return null;
  }
  const path = target.path === undefined ? null : normalizeSlowly(wire(target.path), mode);
  const isTarget = target.path === undefined || target.path.startsWith("/");
  const isMethod = request?.method === undefined || METHODS.test(request.method);
  if (request !== undefined && ((target.path !== undefined && path === null) || !isTarget || !isMethod)) {
    return null;
  }
  const told = headers.get("x-forwarded-proto")?.[0]?.toLowerCase() ?? "";
  const scheme = target.scheme ?? (/^https?$/.test(told) ? told : source?.principal === undefined ? "http" : "https");
  const special: Record<string, string | null> = {
    ":method": request?.method ?? null,
    ":authority": target.host ?? null,
    host: target.host ?? null,
    ":scheme": scheme,
  };
  const facts: Facts = {
    principal: source?.principal ?? null,
    sourceIp: source?.ip ?? null,
    remoteIp: remoteAddress(line, headers),
    destinationIp: destination?.ip ?? null,
    port: destination?.port ?? -1,
    sni: request !== undefined && source?.principal === undefined ? null : (destination?.sni ?? null),
    method: request?.method ?? null,
    path,
    host: target.host ?? null,
    headers,
    header(name) {
      const value = name === ":path" ? facts.path : special[name];
      return value === undefined ? (headers.get(name) ?? []) : value === null ? [] : [value];
    },
    claims: null,
  };
  return facts;
}
