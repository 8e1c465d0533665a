import { parseCertificate } from "../x509/certificate.ts";
import type { Bundle } from "./bundle.ts";
import { verifyX509Svid } from "./x509-svid.ts";

/**
 * Whether an SVID of our own (DER chain, leaf first) has to be replaced before its time: an authority above it is tainted, or was
 * taken out of the bundle, so that peers refuse it, or soon will.
 */
export function isDistrusted(chain: readonly Uint8Array[], bundle: Bundle, now: number): boolean {
  const { taintedX509KeyIds: tainted } = bundle;
  const isTainted = (id: string | null): boolean => id !== null && tainted.includes(id);
  return chain.some((der) => isTainted(parseCertificate(der).authorityKeyId)) || hasLostAuthority(chain, bundle, now);
}

/** Whether a chain that was good leads nowhere any more. Where the bundle is empty nothing is known of it. */
export function hasLostAuthority(chain: readonly Uint8Array[], bundle: Bundle, now: number): boolean {
  const last = chain.at(-1);
  const issuer = last === undefined ? null : parseCertificate(last).authorityKeyId;
  // Cheap where it is as it should be: signatures are looked at again only where no authority has the issuer's name.
  return (
    bundle.x509Authorities.length > 0 &&
    !bundle.x509Authorities.some((der) => issuer !== null && parseCertificate(der).subjectKeyId === issuer) &&
    !verifyX509Svid(chain, () => bundle, now).ok
  );
}

/** Whether tokens signed by the key `keyId` are still to be handed out. */
export function isTrustedKey(keyId: string, bundle: Bundle): boolean {
  return bundle.jwtAuthorities.some((authority) => authority.keyId === keyId && !authority.tainted);
}
