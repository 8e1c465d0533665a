/** Who is at the other end of a TLS connection. INVARIANT: exactly one URI SAN of a chain to the bundle of its own trust domain. */
import type { TLSSocket } from "node:tls";
import type { X509Bundles } from "../core/spiffe/svid.ts";
import { bundlesOf, type RefusedX509Svid, type VerifiedX509Svid, verifyX509Svid } from "../core/spiffe/x509-svid.ts";
import { parseCertificate } from "../core/x509/certificate.ts";
import { peerChain } from "../io/tls.ts";

export type PeerVerdict = (VerifiedX509Svid & { readonly chain: readonly Uint8Array[] }) | RefusedX509Svid;

/** Verifies what the peer of a finished handshake presented, at `now` (ms). */
export function verifyPeer(socket: TLSSocket, bundles: X509Bundles, now: number): PeerVerdict {
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) {
    return verifyX509Svid([], bundlesOf(bundles), now) as RefusedX509Svid;
  }
  // Most leaves are signed by an authority of the bundle itself: the rest of the chain, which is dear to get, is then not needed.
  const chain = [leaf.raw];
  const direct = verifyX509Svid(chain, bundlesOf(bundles), now);
  if (direct.ok) {
    return { ...direct, chain };
  }
  const whole = peerChain(socket);
  if (whole.length <= 1) {
    return direct;
  }
  const verified = verifyX509Svid(whole, bundlesOf(bundles), now);
  return verified.ok ? { ...verified, chain: whole } : verified;
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
