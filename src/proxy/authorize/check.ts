/** What a CUSTOM policy's provider is asked, and what it answers. Errors are answers too: who cannot be asked has not allowed. */
import type { SpiffeId } from "../../core/spiffe/id.ts";

export interface CheckedRequest {
  readonly method: string;
  /** With its query, as it will be forwarded. */
  readonly path: string;
  readonly host: string;
  readonly scheme: "http" | "https";
  readonly protocol: string;
  readonly id: string;
  /** All that will be forwarded; names in lower case, values as on the wire. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Null where the provider does not want to see it. */
  readonly body: { readonly bytes: Buffer; readonly isPartial: boolean } | null;
  /** -1 where it is not said. */
  readonly size: number;
}

export interface Check {
  readonly source: { readonly principal: SpiffeId | null; readonly ip: string; readonly port: number };
  readonly destination: { readonly principal: SpiffeId; readonly ip: string; readonly port: number };
  readonly sni: string | null;
  readonly startedMs: number;
  /** Null on TCP. */
  readonly request: CheckedRequest | null;
}

export interface HeaderChange {
  readonly name: string;
  readonly value: string;
  readonly how: "append" | "add-if-absent" | "overwrite" | "overwrite-if-exists";
}

export type CheckResult =
  | {
      readonly kind: "allowed";
      readonly headers: readonly HeaderChange[];
      readonly remove: readonly string[];
      /** Into the answer. */
      readonly answerHeaders: readonly (readonly [name: string, value: string])[];
    }
  | {
      readonly kind: "denied";
      readonly status: number;
      readonly headers: readonly (readonly [name: string, value: string])[];
      /** As on the wire. */
      readonly body: string;
    }
  | { readonly kind: "failed"; readonly message: string };

export interface Authorizer {
  /** Always answers, within the provider's time. The signal gives up. */
  check(check: Check, signal: AbortSignal): Promise<CheckResult>;
  close(): void;
}

/** Fields that would change where a message ends or who it is for: no authorizer sets them. */
const FORBIDDEN = new Set([
  ...[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
  ],
  ...["x-forwarded-client-cert", "http2-settings"],
]);

const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]{0,16384}$/;

/** Whether a header that an authorizer gives may be put into a message. */
export function isUsable(name: string, value: string): boolean {
  return NAME.test(name) && VALUE.test(value) && !FORBIDDEN.has(name.toLowerCase());
}

/** `x-*`, `*-id`, `*` or an exact name, without case. */
export function matchesName(patterns: readonly string[], name: string): boolean {
  return patterns.some((given) => {
    const pattern = given.toLowerCase();
    if (pattern.endsWith("*")) {
      return name.startsWith(pattern.slice(0, -1));
    }
    return pattern.startsWith("*") ? name.endsWith(pattern.slice(1)) : name === pattern;
  });
}
