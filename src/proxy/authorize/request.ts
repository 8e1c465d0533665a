/** The request of a front as an authorizer is told it. */
import type { PeerFacts } from "../../core/policy/facts.ts";
import type { ExtensionProvider } from "../../core/policy/mesh-config.ts";
import type { Verdict } from "../../core/policy/verdict.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import { chunkedData } from "../http/chunked.ts";
import type { HttpFront } from "../http-front.ts";
import type { Check } from "./check.ts";

/** What the request came over. */
export interface AskedConnection {
  readonly peer: SpiffeId | null;
  readonly peerFacts: PeerFacts;
  readonly scheme: "http" | "https";
  /** The value of X-Forwarded-Client-Cert that is forwarded; null for plaintext. */
  readonly clientCertificate: string | null;
}

/** The denial of a CUSTOM rule. `status` -1: a TCP connection that is closed. */
export function customVerdict(verdict: Verdict, status: number): Verdict {
  const { policy, rule } = verdict.custom ?? { policy: null, rule: null };
  return { ...verdict, decision: "deny", status, reason: "custom-denied", policy, rule };
}

function bodyOf(front: HttpFront): { readonly bytes: Buffer; readonly complete: boolean } {
  const { body, complete } = front.held();
  return { bytes: front.exchange.head.chunked ? chunkedData(body) : body, complete };
}

/** The body is longer than the provider may be sent, and it does not take a part. */
export function tooLarge(front: HttpFront, { extAuthz }: ExtensionProvider): boolean {
  const wanted = extAuthz?.includeRequestBodyInCheck ?? null;
  if (wanted === null || wanted.allowPartialMessage) {
    return false;
  }
  const { bytes, complete } = bodyOf(front);
  return !complete || bytes.length > wanted.maxRequestBytes;
}

export function checkOf(
  front: HttpFront,
  { method, path, host }: { readonly method: string; readonly path: string; readonly host: string },
  connection: AskedConnection,
  own: SpiffeId,
  { extAuthz }: ExtensionProvider,
  nowMs: number,
): Check {
  const { exchange } = front;
  const { head } = exchange;
  const wanted = extAuthz?.includeRequestBodyInCheck ?? null;
  const body = wanted === null ? null : bodyOf(front);
  const max = wanted?.maxRequestBytes ?? 0;
  const { peer, peerFacts, scheme, clientCertificate } = connection;
  const lines = exchange.fields();
  const completed: [string, string][] = [
    ...(head.hasRequestId ? [] : [["x-request-id", exchange.requestId] as [string, string]]),
    ...(head.hasForwardedProto ? [] : [["x-forwarded-proto", scheme] as [string, string]]),
    ...(clientCertificate === null ? [] : [["x-forwarded-client-cert", clientCertificate] as [string, string]]),
  ];
  return {
    source: { principal: peer, ip: peerFacts.sourceIp, port: 0 },
    destination: { principal: own, ip: peerFacts.destinationIp, port: peerFacts.destinationPort },
    sni: peerFacts.sni,
    startedMs: nowMs,
    request: {
      method,
      path,
      host,
      scheme,
      protocol: `HTTP/1.${head.minor}`,
      id: exchange.knownRequestId() ?? "",
      headers: [...lines, ...completed],
      body:
        body === null
          ? null
          : { bytes: body.bytes.subarray(0, max), isPartial: !body.complete || body.bytes.length > max },
      size: head.contentLength,
    },
  };
}
