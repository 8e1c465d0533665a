/**
 * Request headers as an Istio sidecar's policies see them: Envoy joins, adds and takes away some before any filter runs.
 * OBSERVED on Envoy 1.40.0 with two lines of each header.
 */

/** Kept in a single slot: several lines become one value, joined with `,`, empty ones left out. */
const JOINED: ReadonlySet<string> = new Set([
  "accept",
  "accept-encoding",
  "access-control-request-headers",
  "access-control-request-method",
  "access-control-request-private-network",
  "authentication",
  "authorization",
  "cache-control",
  "content-encoding",
  "content-type",
  "expect",
  "grpc-accept-encoding",
  "grpc-timeout",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "origin",
  "pragma",
  "referer",
  "user-agent",
  "via",
  "x-client-trace-id",
  "x-envoy-attempt-count",
  "x-envoy-decorator-operation",
  "x-envoy-original-path",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-request-id",
]);

/** Taken away before any policy looks. */
const HIDDEN: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "x-envoy-retry-on",
  "x-envoy-expected-rq-timeout-ms",
  "x-envoy-upstream-rq-timeout-ms",
]);

export const isHidden = (name: string): boolean => HIDDEN.has(name);

/** The lines of one header (name in lower case) as a policy compares them; null where it does not see them at all. */
export function visibleLines(name: string, lines: readonly string[], http2 = false): readonly string[] | null {
  if (HIDDEN.has(name) || lines.length === 0) {
    return null;
  }
  if (name === "te") {
    return lines.includes("trailers") ? ["trailers"] : null;
  }
  if (lines.length === 1) {
    return lines;
  }
  if (JOINED.has(name)) {
    return [lines.filter((line) => line !== "").join(",")];
  }
  return http2 && name === "cookie" ? [lines.join("; ")] : lines;
}

/** Adds a line to a header as Envoy does: to one that is kept in a single slot it is joined. */
export function addLine(headers: Map<string, readonly string[]>, name: string, value: string): void {
  const lines = headers.get(name) ?? [];
  headers.set(name, JOINED.has(name) && lines.length > 0 ? [[...lines, value].join(",")] : [...lines, value]);
}

/** The address that counts as the remote one: the last entry of X-Forwarded-For, where that is an address. */
export function lastForwardedFor(lines: readonly string[] | null): string | null {
  const last = lines?.at(-1)?.split(",").at(-1)?.trim();
  return last === undefined || last === "" ? null : last;
}
