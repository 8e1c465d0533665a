/** What the proxy itself answers. Nothing in it tells a caller the policy. */
import { STATUS_CODES } from "node:http";

export interface Answer {
  readonly status: number;
  readonly body: string;
  /** Further header lines with CRLF. */
  readonly lines: string;
  /** `response_flags` of log and metrics: Envoy's and ztunnel's words. */
  readonly flags: string;
  /** `response_code_details` of the log. */
  readonly details: string;
}

const answer = (status: number, flags: string, details: string, body: string): Answer => ({
  status,
  body,
  lines: "",
  flags,
  details,
});

export const BAD_REQUEST: Answer = answer(400, "DPE", "http1.codec_error", "bad request");
export const HEAD_TOO_LARGE: Answer = answer(
  431,
  "DPE",
  "request_headers_too_large",
  "request header fields too large",
);
export const METHOD_NOT_ALLOWED: Answer = answer(405, "DPE", "connect_not_allowed", "method not allowed");
export const REQUEST_TIMEOUT: Answer = answer(408, "DT", "request_header_timeout", "request timeout");
export const UPSTREAM_RESET: Answer = answer(
  503,
  "UC",
  "upstream_reset_before_response_started",
  "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
);
export const UPSTREAM_PROTOCOL: Answer = answer(502, "UPE", "upstream_protocol_error", "upstream protocol error");
export const UPSTREAM_TIMEOUT: Answer = answer(504, "UT", "response_timeout", "upstream request timeout");
export const APP_DOWN: Answer = answer(
  503,
  "UF",
  "upstream_connect_failure",
  "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
);
export const NO_ROUTE: Answer = answer(503, "NR", "route_not_found", "no such service in the mesh");
export const NO_IDENTITY: Answer = answer(
  503,
  "IDENTITY_ERROR",
  "own_identity_missing",
  "this service has no identity yet",
);
export const WRONG_IDENTITY: Answer = answer(
  503,
  "IDENTITY_ERROR",
  "upstream_identity_mismatch",
  "the upstream did not prove the identity it is registered under",
);
export const TLS_FAILURE: Answer = answer(503, "TLS_FAILURE", "upstream_tls_failure", "upstream tls handshake failed");
export const NOT_READY: Answer = answer(503, "UH", "no_snapshot", "this sidecar has no configuration yet");

/** The one answer to whoever may not. `denialId` leads the operator, and nobody else, to the reason. */
export function denied(
  denialId: string,
  details: string,
  status = 403,
  body = "RBAC: access denied",
  lines = "",
): Answer {
  return { status, body, lines: `${lines}x-everyhop-denial: ${denialId}\r\n`, flags: "DENY", details };
}

export const PAYLOAD_TOO_LARGE = "Payload Too Large";

const TOKEN_BODIES: Readonly<Record<string, string>> = {
  malformed: "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
  "unknown-issuer": "Jwt issuer is not configured",
  expired: "Jwt is expired",
  "not-yet-valid": "Jwt not yet valid",
  "wrong-audience": "Audiences in Jwt are not allowed",
  "bad-signature": "Jwt verification fails",
};

/** To whoever sent a token that is not good: what is wrong with it, as Envoy says it. SPEC: RFC 6750 §3. */
export function tokenRefused(denialId: string, status: 401 | 403, fault: string, url: string): Answer {
  const realm = url.replace(/["\\]/g, "");
  const lines = status === 401 ? `www-authenticate: Bearer realm="${realm}", error="invalid_token"\r\n` : "";
  return denied(denialId, `jwt_authn_access_denied{${fault}}`, status, TOKEN_BODIES[fault] ?? "", lines);
}

export function answerBytes(reply: Answer, withoutBody: boolean, closes: boolean): Buffer {
  const type = /^content-type:/im.test(reply.lines) ? "" : "content-type: text/plain\r\n";
  const head =
    `HTTP/1.1 ${reply.status} ${STATUS_CODES[reply.status] ?? ""}\r\n` +
    `content-length: ${reply.body.length}\r\n${type}${reply.lines}` +
    `${closes ? "connection: close\r\n" : ""}\r\n`;
  return Buffer.from(withoutBody ? head : head + reply.body, "latin1");
}
