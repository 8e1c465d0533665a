import type { SpiffeId, TrustDomain } from "./id.ts";

/** An X.509-SVID with its private key, as a workload holds it. */
export interface X509Svid {
  readonly id: SpiffeId;
  /** DER certificates, leaf first; no root. */
  readonly chain: readonly Uint8Array[];
  /** PKCS#8 DER, unencrypted. INVARIANT: never logged, never sent but to the process it was made for. */
  readonly keyDer: Uint8Array;
  /** Serial number, lower-case hex. */
  readonly serial: string;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly hint: string;
}

/** The X.509 authorities (DER) of each trust domain. INVARIANT: never merged across trust domains. */
export type X509Bundles = ReadonlyMap<TrustDomain, readonly Uint8Array[]>;

/** Whether less than a quarter of a lifetime is left: an SVID is renewed at half of it, so whoever renews it does not. */
export function isOverdue(notBefore: number, notAfter: number, now: number): boolean {
  return notAfter - now < (notAfter - notBefore) / 4;
}
