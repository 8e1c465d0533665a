/**
 * Request headers as an Istio sidecar's policies see them: Envoy joins, adds and takes away some before any filter runs.
 * OBSERVED on Envoy 1.40.0 with two lines of each header.
 */

/** Kept in a single slot: several lines become one value, joined with `,`, empty ones left out. */
const JOINED: ReadonlySet<string> = new Set(
  (
    "accept accept-encoding access-control-request-headers access-control-request-method " +
    "access-control-request-private-network authentication authorization cache-control cdn-loop connection " +
    "content-encoding content-type expect grpc-accept-encoding grpc-timeout if-match if-modified-since if-none-match " +
    "if-range if-unmodified-since origin pragma referer te upgrade user-agent via x-client-trace-id " +
    "x-envoy-attempt-count x-envoy-decorator-operation x-envoy-downstream-service-cluster " +
    "x-envoy-downstream-service-node x-envoy-external-address x-envoy-is-timeout-retry x-envoy-original-host " +
    "x-envoy-original-path x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port " +
    "x-forwarded-proto x-request-id"
  ).split(" "),
);

/** Taken away before any policy looks. */
const HIDDEN: ReadonlySet<string> = new Set(
  (
    "connection keep-alive proxy-connection upgrade x-envoy-expected-rq-timeout-ms x-envoy-force-trace " +
    "x-envoy-hedge-on-per-try-timeout x-envoy-internal x-envoy-ip-tags x-envoy-max-retries " +
    "x-envoy-retriable-header-names x-envoy-retriable-status-codes x-envoy-retry-grpc-on x-envoy-retry-on " +
    "x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-per-try-timeout-ms x-envoy-upstream-rq-timeout-alt-response " +
    "x-envoy-upstream-rq-timeout-ms x-envoy-upstream-stream-duration-ms"
  ).split(" "),
);

export const isHidden = (name: string): boolean => HIDDEN.has(name);

/** The lines of one header (name in lower case) as they are kept once the request is read. */
function keptLines(name: string, lines: readonly string[], http2: boolean): readonly string[] {
  if (lines.length <= 1) {
    return lines;
  }
  if (JOINED.has(name)) {
    return [lines.filter((line) => line !== "").join(",")];
  }
  return http2 && name === "cookie" ? [lines.join("; ")] : lines;
}

/** Headers as a policy compares them, from the lines as they were received; names in lower case. */
export function visibleHeaders(
  received: ReadonlyMap<string, readonly string[]>,
  http2 = false,
): Map<string, readonly string[]> {
  const headers = new Map<string, readonly string[]>();
  for (const [name, lines] of received) {
    const kept = keptLines(name, lines, http2);
    if (kept.length > 0) {
      headers.set(name, kept);
    }
  }
  const nominated = words(headers.get("connection")?.[0]);
  const isWebSocket = nominated.includes("upgrade") && headers.get("upgrade")?.[0]?.toLowerCase() === "websocket";
  for (const name of [...headers.keys()]) {
    const isUpgrade = isWebSocket && (name === "connection" || name === "upgrade");
    if ((HIDDEN.has(name) && !isUpgrade) || (nominated.includes(name) && !isUpgrade)) {
      headers.delete(name);
    }
  }
  dropUnlessValid(headers, "te", transferEncodings);
  dropUnlessValid(headers, "referer", (value) => (isReferer(value) ? value : null));
  return headers;
}

const words = (value: string | undefined): readonly string[] =>
  (value ?? "").split(",").map((word) => word.trim().toLowerCase());

function dropUnlessValid(
  headers: Map<string, readonly string[]>,
  name: string,
  valid: (value: string) => string | null,
): void {
  const given = headers.get(name)?.[0];
  const value = given === undefined ? null : valid(given);
  if (value === null) {
    headers.delete(name);
  } else {
    headers.set(name, [value]);
  }
}

/** Of `te` only `trailers` is left. */
function transferEncodings(value: string): string | null {
  const isTrailers = value.split(",").some((word) => word.trim() === "trailers");
  return value === "" ? value : isTrailers ? "trailers" : null;
}

const ABSOLUTE_REFERER = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?([/?][!-"$-~]*)?$/;

/** A URL without fragment and user, or a relative reference; anything else in `referer` is taken away. */
function isReferer(value: string): boolean {
  const port = ABSOLUTE_REFERER.exec(value)?.[2];
  if (ABSOLUTE_REFERER.test(value)) {
    return port === undefined || Number(port.slice(1)) <= 65_535;
  }
  const first = value.split("/", 1)[0] ?? "";
  return !first.includes(":") && /^[!$%&'()*+,\-./0-9:;=?@A-Z_a-z~]*$/.test(value);
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
