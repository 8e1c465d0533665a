/** A request as written down, completed to what an inbound sidecar's policies see of it. */
import { parseIp } from "../base/cidr.ts";
import { toWire } from "../base/pattern.ts";
import { type CompiledTokens, splitClaims } from "./authenticate.ts";
import type { MeshScope } from "./compile.ts";
import type { AuthPart, DecisionRequest, RequestPart } from "./decision-request.ts";
import type { Claims, HttpFacts } from "./facts.ts";
import { addLine, lastForwardedFor, visibleHeaders } from "./headers.ts";
import { normalizePath, type PathNormalization } from "./normalize.ts";
import { splitTarget } from "./request-target.ts";
import type { TokenCarrier } from "./token-places.ts";

/** Methods Envoy's HTTP/1.1 parser knows; any other is answered 400. Over HTTP/2 every method passes. */
const METHODS: ReadonlySet<string> = new Set(
  (
    "ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE MSEARCH NOTIFY " +
    "OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK " +
    "UNLOCK UNSUBSCRIBE"
  ).split(" "),
);

/** A request before its tokens are looked at; validating them may change path and headers. */
export interface ReceivedRequest extends TokenCarrier {
  readonly host: string | null;
  readonly remoteIp: string | null;
}

/** Null where the request itself is refused (400). */
export function receivedRequest(part: RequestPart, request: DecisionRequest, mesh: MeshScope): ReceivedRequest | null {
  if (part.withoutHost || (part.method !== null && !part.http2 && !METHODS.has(part.method))) {
    return null;
  }
  const target = splitTarget(part.path, part.host === null ? null : wireValue(part.host));
  if (target === null) {
    return null;
  }
  const path =
    target.path === null ? null : normalizeTarget(target.path, part.method, mesh.meshConfig.pathNormalization);
  if (path === null && target.path !== null) {
    return null;
  }
  const headers = receivedHeaders(part, request, mesh.trustDomain);
  if (headers === null) {
    return null;
  }
  if (target.scheme !== null) {
    headers.set(":scheme", [target.scheme]);
  }
  return {
    method: part.method,
    path,
    host: target.host,
    headers,
    remoteIp: remoteIp(request, headers.get("x-forwarded-for") ?? null),
  };
}

export function httpFacts(received: ReceivedRequest, auth: Claims | null): HttpFacts {
  const { method, path, host, headers, remoteIp } = received;
  return { method, path, host, header: (name) => headers.get(name) ?? null, auth, remoteIp };
}

function normalizeTarget(path: string, method: string | null, normalization: PathNormalization): string | null {
  if (path === "*" && method === "OPTIONS") {
    return path;
  }
  return path.startsWith("/") ? normalizePath(toWire(path), normalization) : null;
}

/** Not known here: any value shows that the header is there. */
const SOME_REQUEST_ID = "00000000-0000-4000-8000-000000000000";
const SOME_HASH = "0".repeat(64);

/** How the workload names itself in X-Forwarded-Client-Cert. */
function ownIdentity({ destination }: DecisionRequest, trustDomain: string): string {
  const { namespace, serviceAccount, name } = destination;
  return `By=spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount ?? name ?? "default"}`;
}

function receivedHeaders(
  part: RequestPart,
  request: DecisionRequest,
  trustDomain: string,
): Map<string, readonly string[]> | null {
  const lines = new Map([...part.headers].map(([name, values]) => [name, values.map(wireValue)]));
  const headers = visibleHeaders(lines, part.http2);
  if (headers === null) {
    return null;
  }
  if (part.token !== null) {
    addLine(headers, "authorization", `Bearer ${wireValue(part.token)}`.trimEnd());
  }
  const { principal, remoteIp: forwarded } = request.source;
  if (!headers.get("x-request-id")?.[0]) {
    headers.set("x-request-id", [SOME_REQUEST_ID]);
  }
  if (!headers.has("x-forwarded-proto")) {
    headers.set("x-forwarded-proto", [principal === null ? "http" : "https"]);
  }
  if (forwarded !== null && !headers.has("x-forwarded-for")) {
    headers.set("x-forwarded-for", [forwarded]);
  }
  if (principal === null) {
    headers.delete("x-forwarded-client-cert");
  } else {
    const proven = `${ownIdentity(request, trustDomain)};Hash=${SOME_HASH};Subject="";URI=spiffe://${principal}`;
    headers.set("x-forwarded-client-cert", [[...(headers.get("x-forwarded-client-cert") ?? []), proven].join(",")]);
  }
  return headers;
}

/** HTTP takes the whitespace around a value away. */
const wireValue = (value: string): string => toWire(value).replace(/^[ \t]+|[ \t]+$/g, "");

/** What was written down wins; else the last entry of X-Forwarded-For, where it is an address. */
function remoteIp({ source }: DecisionRequest, forwardedFor: readonly string[] | null): string | null {
  if (source.remoteIp !== null) {
    return source.remoteIp;
  }
  const last = lastForwardedFor(forwardedFor);
  return last !== null && parseIp(last) !== null ? last : source.ip;
}

/** Claims given as validated; what the rule of that issuer splits at spaces is split. */
export function claimsOf(auth: AuthPart, tokens: CompiledTokens): Claims {
  const claims: Record<string, unknown> = { ...auth.claims };
  const given = { iss: auth.issuer, sub: auth.subject, aud: auth.audiences, azp: auth.presenter };
  for (const [name, value] of Object.entries(given)) {
    if (value !== null) {
      claims[name] = value;
    }
  }
  const provider = tokens.providers.find(({ rule }) => rule.issuer === "" || rule.issuer === claims.iss);
  return splitClaims(claims, provider?.rule.spaceDelimitedClaims ?? []);
}
