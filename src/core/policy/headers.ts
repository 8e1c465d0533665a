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

/**
 * The lines of one header (name in lower case) as a policy compares them; null where it does not see them. What the
 * `connection` header says of others is not in it: see `visibleHeaders`.
 */
export function visibleLines(name: string, lines: readonly string[], http2 = false): readonly string[] | null {
  const kept = HIDDEN.has(name) ? [] : keptLines(name, lines, http2);
  const [first] = kept;
  if (first === undefined) {
    return null;
  }
  if (name !== "te" && name !== "referer") {
    return kept;
  }
  const valid = name === "te" ? transferEncodings(first) : isReferer(first) ? first : null;
  return valid === null ? null : [valid];
}

/** Headers that `connection` may not take away: a request that names one of them is answered 400. */
const NOT_FOR_CONNECTION = /^(x-forwarded-for|x-forwarded-host|x-forwarded-proto|host|:.*)$/;

/**
 * Headers as a policy compares them, from the lines as they were received; names in lower case. Null where the request is
 * answered 400 for what its `connection` header names. Of a WebSocket upgrade Envoy takes nothing away.
 */
export function visibleHeaders(
  received: ReadonlyMap<string, readonly string[]>,
  http2 = false,
): Map<string, readonly string[]> | null {
  const [connection] = keptLines("connection", received.get("connection") ?? [], http2);
  const nominated = words(connection);
  const isWebSocket = nominated.includes("upgrade") && received.get("upgrade")?.[0]?.toLowerCase() === "websocket";
  if (!isWebSocket && nominated.some((name) => NOT_FOR_CONNECTION.test(name))) {
    return null;
  }
  const headers = new Map<string, readonly string[]>();
  for (const [name, lines] of received) {
    const isKept = isWebSocket && (["connection", "upgrade", "te"].includes(name) || nominated.includes(name));
    const visible = isKept ? keptLines(name, lines, http2) : visibleLines(name, lines, http2);
    if (visible !== null && visible.length > 0 && (isKept || name === "te" || !nominated.includes(name))) {
      headers.set(name, visible);
    }
  }
  return headers;
}

const words = (value: string | undefined): readonly string[] =>
  (value ?? "").split(",").map((word) => word.trim().toLowerCase());

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
  return last === undefined || last === "" || last.includes("%") ? null : last;
}
