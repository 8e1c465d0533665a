import type { MessageInitShape } from "@bufbuild/protobuf";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Bundle, JwtAuthority } from "../../core/spiffe/bundle.ts";
import { parseTrustDomain, type TrustDomain } from "../../core/spiffe/id.ts";
import { publicKeyFromSpki } from "../../core/x509/algorithm.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import type {
  BundleMask,
  Bundle as BundleMessage,
  BundleSchema,
  JWTKey,
  X509Certificate,
} from "../../gen/spire/api/types/bundle_pb.js";
import { masked, milliseconds, seconds } from "./wire.ts";

const MAX_AUTHORITIES = 1_024;

export function bundleToWire(bundle: Bundle, mask?: BundleMask): MessageInitShape<typeof BundleSchema> {
  const message = {
    trustDomain: bundle.trustDomain as string,
    x509Authorities: bundle.x509Authorities.map((asn1) => ({ asn1, tainted: isTainted(bundle, asn1) })),
    jwtAuthorities: bundle.jwtAuthorities.map(jwtAuthorityToWire),
    refreshHint: seconds(bundle.refreshHintMs),
    sequenceNumber: bundle.sequence,
  };
  return masked(message, mask, ["trustDomain"]);
}

export function jwtAuthorityToWire({ publicKey, keyId, expiresAtMs, tainted }: JwtAuthority) {
  return { publicKey, keyId, expiresAt: seconds(expiresAtMs), tainted };
}

function isTainted({ taintedX509KeyIds }: Bundle, der: Uint8Array): boolean {
  return taintedX509KeyIds.length > 0 && taintedX509KeyIds.includes(parseCertificate(der).subjectKeyId ?? "");
}

/** Errors: `invalid-argument` for a name, certificate or key that is none. */
export function bundleFromWire(message: BundleMessage): Bundle {
  return {
    trustDomain: trustDomainFromWire(message.trustDomain),
    ...authoritiesFromWire(message),
    sequence: message.sequenceNumber,
    refreshHintMs: milliseconds(message.refreshHint) || null,
  };
}

export function trustDomainFromWire(name: string): TrustDomain {
  try {
    return parseTrustDomain(name);
  } catch (error) {
    throw new EveryhopError("invalid-argument", `trust domain argument is not valid: ${(error as Error).message}`);
  }
}

interface Authorities {
  readonly x509Authorities: readonly X509Certificate[];
  readonly jwtAuthorities: readonly JWTKey[];
}

export function authoritiesFromWire({
  x509Authorities,
  jwtAuthorities,
}: Authorities): Pick<Bundle, "x509Authorities" | "jwtAuthorities" | "taintedX509KeyIds"> {
  if (x509Authorities.length + jwtAuthorities.length > MAX_AUTHORITIES) {
    throw new EveryhopError("invalid-argument", `a bundle has at most ${MAX_AUTHORITIES} authorities`);
  }
  const tainted: string[] = [];
  const certificates = x509Authorities.map((authority) => {
    const { subjectKeyId } = parseCertificate(authority.asn1);
    if (authority.tainted && subjectKeyId !== null) {
      tainted.push(subjectKeyId);
    }
    return authority.asn1;
  });
  return {
    x509Authorities: certificates,
    taintedX509KeyIds: tainted,
    jwtAuthorities: jwtAuthorities.map(jwtAuthorityFromWire),
  };
}

function jwtAuthorityFromWire({ keyId, publicKey, expiresAt, tainted }: JWTKey): JwtAuthority {
  if (keyId === "") {
    throw new EveryhopError("invalid-argument", "a JWT authority has no key id");
  }
  publicKeyFromSpki(publicKey);
  return { keyId, publicKey, expiresAtMs: milliseconds(expiresAt) || null, tainted };
}

interface BundleDocument {
  readonly x509: readonly string[];
  readonly tainted: readonly string[];
  readonly jwt: readonly { keyId: string; publicKey: string; expiresAtMs: number | null; tainted: boolean }[];
  readonly refreshHintMs: number | null;
  readonly sequence: string;
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");

/** How a bundle is kept in the store: all of it, also what SPIFFE's JSON has no place for (taints, times). */
export function bundleToDocument(bundle: Bundle): string {
  const document: BundleDocument = {
    x509: bundle.x509Authorities.map(base64),
    tainted: bundle.taintedX509KeyIds,
    jwt: bundle.jwtAuthorities.map((authority) => ({ ...authority, publicKey: base64(authority.publicKey) })),
    refreshHintMs: bundle.refreshHintMs,
    sequence: bundle.sequence.toString(),
  };
  return JSON.stringify(document);
}

export function bundleFromDocument(trustDomain: TrustDomain, text: string): Bundle {
  const document = JSON.parse(text) as BundleDocument;
  return {
    trustDomain,
    x509Authorities: document.x509.map((one) => Buffer.from(one, "base64")),
    taintedX509KeyIds: document.tainted,
    jwtAuthorities: document.jwt.map((one) => ({ ...one, publicKey: Buffer.from(one.publicKey, "base64") })),
    refreshHintMs: document.refreshHintMs,
    sequence: BigInt(document.sequence),
  };
}
