import type { SpiffeId } from "../../core/spiffe/id.ts";

/** What is about to be signed. */
export interface IssuanceIntent {
  readonly kind: "x509-svid" | "x509-ca" | "jwt-svid";
  /** Lower-case hex, 128 random bits; for a JWT-SVID a number of the journal's own. */
  readonly serial: string;
  readonly spiffeId: SpiffeId;
  /** The registration entry, or what else grants it: `agent:<spiffe id>`, `server`, `authority`. */
  readonly entryId: string;
  /** Which key signs: subjectKeyIdentifier in hex, or `kid`. */
  readonly authorityId: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly dnsNames: readonly string[];
  readonly audiences: readonly string[];
  /** SHA-256 of the bytes to be signed, lower-case hex. */
  readonly digest: string;
}

/**
 * The record of everything that was signed. INVARIANT: `intend` has returned before a signature exists, so a certificate
 * that the journal does not know was not made here. A row without a record was intended and not (or not provably) signed.
 */
export interface Journal {
  intend(intent: IssuanceIntent): Promise<void> | void;
  /** `issued`: the certificate's DER; for a JWT-SVID the SHA-256 of the token, which as a bearer secret is not kept. */
  record(serial: string, issued: Uint8Array): Promise<void> | void;
}
