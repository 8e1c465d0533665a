import type { Cell } from "../../core/base/cell.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Bundle, JwtAuthority } from "../../core/spiffe/bundle.ts";
import { type Certificate, parseCertificate } from "../../core/x509/certificate.ts";
import { validatePath } from "../../core/x509/path.ts";

/** An authority above ours, which certifies our CAs: then the trust domain is believed by its roots, not by ours. */
export interface Upstream {
  /** What it is believed by, as far as is known: its roots, and the JWT keys of everyone below it. */
  readonly bundle: Cell<Bundle>;
  /**
   * Certifies the key of a CA of ours: its certificate and those above it (DER), roots left out. What they lead to is in
   * `bundle` once this resolves. Errors: `unavailable`, what else stands in the way.
   */
  certify(csr: Uint8Array, ttlMs: number): Promise<readonly Uint8Array[]>;
  /** Makes a JWT key known above; null where there is nobody to know it. */
  readonly publish: ((key: JwtAuthority) => Promise<void>) | null;
  /** Marks a root of it as no longer secure, by its subjectKeyIdentifier. */
  taint(subjectKeyId: string): Promise<void>;
  /** Believes a root of it, or a JWT key, no more. */
  revoke(id: string): Promise<void>;
}

/**
 * INVARIANT: a CA of ours is used only where every verifier will accept what it signs: of the key we asked for, free to sign
 * leaves, and under a root that is published. Errors: `failed-precondition`.
 */
export function checkedChain(chain: readonly Uint8Array[], spki: Uint8Array, bundle: Bundle, now: number): Certificate {
  const refuse = (why: string): never => {
    throw new EveryhopError("failed-precondition", `the upstream authority's certificate cannot be used: ${why}`, {
      hint: "it has to be a CA of this trust domain, with room for leaves below it",
    });
  };
  const certificates = chain.map(parseCertificate);
  const [own] = certificates;
  if (own === undefined) {
    return refuse("there is none");
  }
  if (Buffer.compare(own.spki, spki) !== 0) {
    refuse("it is of another key");
  }
  if (own.basicConstraints?.ca !== true || !(own.keyUsage ?? []).includes("keyCertSign") || own.subjectKeyId === null) {
    refuse("it is no CA that may sign");
  }
  const uris = own.names?.uris ?? [];
  if (uris.some((uri) => uri !== `spiffe://${bundle.trustDomain}`)) {
    refuse(`it is of \`${uris.join("`, `")}\``);
  }
  const fault = chainFault(chain, bundle, now);
  return fault === null ? own : refuse(fault);
}

/** Why what hangs below this chain of CAs is not, or no longer, to be relied on; null where it is. */
export function chainFault(chain: readonly Uint8Array[], bundle: Bundle, now: number): string | null {
  const certificates = chain.map(parseCertificate);
  if (
    certificates.some(
      ({ authorityKeyId }) => authorityKeyId !== null && bundle.taintedX509KeyIds.includes(authorityKeyId),
    )
  ) {
    return "what is above it is tainted";
  }
  const path = validatePath(certificates, bundle.x509Authorities, now);
  return path.ok ? null : path.message;
}
