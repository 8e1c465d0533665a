import { constants, createHmac, type KeyObject, sign, timingSafeEqual, verify } from "node:crypto";
import { EveryhopError } from "../base/errors.ts";
import { derFromJose, joseFromDer } from "./ecdsa.ts";

/** Signature algorithms of JWS. `none` is not one. SPEC: RFC 7518 §3.1, RFC 8037 §3.1. */
export type JwsAlgorithm =
  | "RS256"
  | "RS384"
  | "RS512"
  | "PS256"
  | "PS384"
  | "PS512"
  | "ES256"
  | "ES384"
  | "ES512"
  | "EdDSA"
  | "HS256"
  | "HS384"
  | "HS512";

export type KeyType = "RSA" | "EC" | "OKP" | "oct";

interface AlgorithmRow {
  readonly kty: KeyType;
  readonly crv: string | null;
  readonly digest: string | null;
  /** Octets of an ECDSA signature (r and s). */
  readonly signatureLength: number | null;
}

const row = (kty: KeyType, digest: string | null, crv: string | null = null, length: number | null = null) => ({
  kty,
  crv,
  digest,
  signatureLength: length,
});

/** INVARIANT: an algorithm fits one type of key (and one curve). That is what makes algorithm confusion impossible. */
export const ALGORITHMS: Readonly<Record<JwsAlgorithm, AlgorithmRow>> = {
  RS256: row("RSA", "sha256"),
  RS384: row("RSA", "sha384"),
  RS512: row("RSA", "sha512"),
  PS256: row("RSA", "sha256"),
  PS384: row("RSA", "sha384"),
  PS512: row("RSA", "sha512"),
  ES256: row("EC", "sha256", "P-256", 64),
  ES384: row("EC", "sha384", "P-384", 96),
  ES512: row("EC", "sha512", "P-521", 132),
  EdDSA: row("OKP", null, "Ed25519", 64),
  HS256: row("oct", "sha256"),
  HS384: row("oct", "sha384"),
  HS512: row("oct", "sha512"),
};

/** What SPIFFE allows. SPEC: JWT-SVID §2.1. */
export const JWT_SVID_ALGORITHMS: readonly JwsAlgorithm[] = [
  "RS256",
  "RS384",
  "RS512",
  "ES256",
  "ES384",
  "ES512",
  "PS256",
  "PS384",
  "PS512",
];

/** All with a public key: what tokens of third parties may use. */
export const PUBLIC_KEY_ALGORITHMS: readonly JwsAlgorithm[] = [...JWT_SVID_ALGORITHMS, "EdDSA"];

export function isJwsAlgorithm(name: unknown): name is JwsAlgorithm {
  return typeof name === "string" && Object.hasOwn(ALGORITHMS, name);
}

/** Options for node:crypto. SPEC: RFC 7518 §3.5: the salt of PSS is as long as the digest. */
function keyInput(algorithm: JwsAlgorithm, key: KeyObject) {
  return algorithm.startsWith("PS")
    ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : key;
}

/** The caller has made sure that `key` is of the algorithm's type and curve. */
export function verifyWith(algorithm: JwsAlgorithm, key: KeyObject, input: Uint8Array, signature: Uint8Array): boolean {
  const { kty, digest, signatureLength } = ALGORITHMS[algorithm];
  if (kty === "oct") {
    const expected = createHmac(digest as string, key)
      .update(input)
      .digest();
    return expected.length === signature.length && timingSafeEqual(expected, signature);
  }
  if (signatureLength !== null && signature.length !== signatureLength) {
    return false;
  }
  try {
    return verify(digest, input, keyInput(algorithm, key), kty === "EC" ? derFromJose(signature) : signature);
  } catch {
    return false;
  }
}

/** A JWS signature with a private key. */
export function signWith(algorithm: JwsAlgorithm, key: KeyObject, input: Uint8Array): Uint8Array {
  const { kty, digest, signatureLength } = ALGORITHMS[algorithm];
  if (kty === "oct") {
    return createHmac(digest as string, key)
      .update(input)
      .digest();
  }
  const signature = sign(digest, input, keyInput(algorithm, key));
  const jose = kty === "EC" ? joseFromDer(signature, (signatureLength ?? 0) / 2) : signature;
  if (jose === null) {
    throw new EveryhopError("internal", "a signature of the wrong curve");
  }
  return jose;
}
