/** Who is at the other end of a TLS connection. INVARIANT: exactly one URI SAN of a chain to the bundle of its own trust domain. */
import type { TLSSocket } from "node:tls";
import type { X509Bundles } from "../core/spiffe/svid.ts";
import { bundlesOf, type RefusedX509Svid, type VerifiedX509Svid, verifyX509Svid } from "../core/spiffe/x509-svid.ts";
import { parseCertificate } from "../core/x509/certificate.ts";
import { MAX_CHAIN } from "../io/tls.ts";

export type PeerVerdict = (VerifiedX509Svid & { readonly chain: readonly Uint8Array[] }) | RefusedX509Svid;

/** Verifies what the peer of a finished handshake presented, at `now` (ms). Once for each connection. */
export function verifyPeer(socket: TLSSocket, bundles: X509Bundles, now: number): PeerVerdict {
  const chain = presentedChain(socket);
  const verified = verifyX509Svid(chain, bundlesOf(bundles), now);
  return verified.ok ? { ...verified, chain } : verified;
}

/**
 * The certificates as sent, DER, leaf first. A twentieth of the cost of getPeerCertificate(true), which matters at each
 * handshake; but the first call uses up OpenSSL's own list (seen in Node 24.21), so no other call may come after it.
 */
function presentedChain(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = [];
  let certificate = socket.getPeerX509Certificate();
  while (certificate !== undefined && chain.length <= MAX_CHAIN) {
    chain.push(certificate.raw);
    certificate = certificate.issuerCertificate;
  }
  return chain;
}

/** What proved an identity, and when: enough to ask again after the bundles changed. */
export interface Proof {
  readonly chain: readonly Uint8Array[];
  readonly provenAtMs: number;
}

/** Whether a chain that was good when the connection began would be so under `bundles`. */
export function stillBelieved(proof: Proof, bundles: X509Bundles): boolean {
  return verifyX509Svid(proof.chain, bundlesOf(bundles), proof.provenAtMs).ok;
}

/**
 * The bundles by which living connections are judged after a change from `before` to `after`, or null where none of them can be
 * affected: an authority that left because it expired ends no connection, one that was taken out before its time does.
 */
export function bundlesAfterRemoval(before: X509Bundles, after: X509Bundles, now: number): X509Bundles | null {
  const judged = new Map(after);
  let removed = false;
  for (const [trustDomain, authorities] of before) {
    const kept = after.get(trustDomain) ?? [];
    const gone = authorities.filter((old) => !kept.some((der) => Buffer.compare(der, old) === 0));
    const expired = gone.filter((der) => parseCertificate(der).notAfterMs <= now);
    removed ||= expired.length < gone.length;
    judged.set(trustDomain, [...kept, ...expired]);
  }
  return removed ? judged : null;
}
