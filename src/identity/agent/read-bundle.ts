import type { Bundle } from "../../core/spiffe/bundle.ts";
import { parseTrustDomain } from "../../core/spiffe/id.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import type { Bundle as BundleMessage } from "../../gen/spire/api/types/bundle_pb.js";

/** A bundle from the node API. Errors: `invalid-argument` where a certificate does not parse. */
export function readBundle(message: BundleMessage): Bundle {
  const x509Authorities = message.x509Authorities.map(({ asn1 }) => new Uint8Array(asn1));
  const tainted = message.x509Authorities.flatMap(({ asn1, tainted: is }) => {
    const { subjectKeyId } = parseCertificate(asn1);
    return is && subjectKeyId !== null ? [subjectKeyId] : [];
  });
  return {
    trustDomain: parseTrustDomain(message.trustDomain),
    x509Authorities,
    taintedX509KeyIds: tainted,
    jwtAuthorities: message.jwtAuthorities.map(({ keyId, publicKey, expiresAt, tainted: is }) => ({
      keyId,
      publicKey,
      expiresAtMs: expiresAt === 0n ? null : Number(expiresAt) * 1_000,
      tainted: is,
    })),
    sequence: message.sequenceNumber,
    refreshHintMs: message.refreshHint === 0n ? null : Number(message.refreshHint) * 1_000,
  };
}
