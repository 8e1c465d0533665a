import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { EveryhopError } from "../base/errors.ts";
import { DerReader, TAG } from "./der.ts";
import { oidElement, sequence, tlv } from "./der-write.ts";
import { isPointOn } from "./point.ts";

/** Signature algorithms that certificates may use here. SHA-1 and MD5 are not among them. */
export type SignatureAlgorithm =
  | "ecdsa-sha256"
  | "ecdsa-sha384"
  | "ecdsa-sha512"
  | "rsa-sha256"
  | "rsa-sha384"
  | "rsa-sha512"
  | "ed25519";

type KeyFamily = "ec" | "rsa" | "ed25519";

interface AlgorithmRow {
  readonly family: KeyFamily;
  /** Digest for node:crypto; null where the algorithm brings its own. */
  readonly digest: string | null;
  /** The whole AlgorithmIdentifier. */
  readonly der: Uint8Array;
}

const NULL = tlv(TAG.null);
const ecdsa = (digest: string, arc: number): AlgorithmRow => ({
  family: "ec",
  digest,
  der: sequence(oidElement(`1.2.840.10045.4.3.${arc}`)),
});
const rsa = (digest: string, arc: number): AlgorithmRow => ({
  family: "rsa",
  digest,
  der: sequence(oidElement(`1.2.840.113549.1.1.${arc}`), NULL),
});

/** SPEC: RFC 5758 §3.2, RFC 4055 §5, RFC 8410 §3 (parameters: absent, NULL, absent). */
const ALGORITHMS: Readonly<Record<SignatureAlgorithm, AlgorithmRow>> = {
  "ecdsa-sha256": ecdsa("sha256", 2),
  "ecdsa-sha384": ecdsa("sha384", 3),
  "ecdsa-sha512": ecdsa("sha512", 4),
  "rsa-sha256": rsa("sha256", 11),
  "rsa-sha384": rsa("sha384", 12),
  "rsa-sha512": rsa("sha512", 13),
  ed25519: { family: "ed25519", digest: null, der: sequence(oidElement("1.3.101.112")) },
};

const BY_DER = new Map(
  Object.entries(ALGORITHMS).map(([name, row]) => [latin1(row.der), name as SignatureAlgorithm] as const),
);

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** The algorithm that an AlgorithmIdentifier names; null where it is none of ours. */
export function signatureAlgorithmOf(der: Uint8Array): SignatureAlgorithm | null {
  return BY_DER.get(latin1(der)) ?? null;
}

export function algorithmIdentifier(algorithm: SignatureAlgorithm): Uint8Array {
  return ALGORITHMS[algorithm].der;
}

/** Digest to give node:crypto's `sign`; null for Ed25519. */
export function digestOf(algorithm: SignatureAlgorithm): string | null {
  return ALGORITHMS[algorithm].digest;
}

/** A public key, described by what its strength is judged by. */
export type PublicKeyKind =
  | { readonly kind: "ec"; readonly curve: string }
  | { readonly kind: "rsa"; readonly bits: number; readonly oddExponent: boolean }
  | { readonly kind: "ed25519" }
  | { readonly kind: "other"; readonly oid: string };

export interface PublicKeyInfo {
  readonly key: PublicKeyKind;
  /** The contents of the subjectPublicKey bit string: what key identifiers are made of. */
  readonly bits: Uint8Array;
}

const CURVES: Readonly<Record<string, string>> = {
  "1.2.840.10045.3.1.7": "P-256",
  "1.3.132.0.34": "P-384",
  "1.3.132.0.35": "P-521",
};

/** Parses a SubjectPublicKeyInfo. SPEC: RFC 5280 §4.1.2.7, RFC 5480, RFC 8410. */
export function parsePublicKeyInfo(spki: Uint8Array): PublicKeyInfo {
  const outer = new DerReader(spki);
  const info = outer.enter(TAG.sequence);
  outer.done();
  const algorithm = info.enter(TAG.sequence);
  const bits = info.octetAlignedBits();
  info.done();
  const oid = algorithm.oid();
  if (oid === "1.2.840.10045.2.1") {
    const curve = algorithm.oid();
    algorithm.done();
    return { key: { kind: "ec", curve: CURVES[curve] ?? curve }, bits };
  }
  if (oid === "1.2.840.113549.1.1.1") {
    algorithm.content(TAG.null);
    algorithm.done();
    return { key: rsaKind(bits), bits };
  }
  return { key: oid === "1.3.101.112" ? { kind: "ed25519" } : { kind: "other", oid }, bits };
}

function rsaKind(bits: Uint8Array): PublicKeyKind {
  const outer = new DerReader(bits);
  const key = outer.enter(TAG.sequence);
  outer.done();
  const modulus = key.integer();
  const exponent = key.integer();
  key.done();
  const lead = modulus[0] === 0 ? modulus.subarray(1) : modulus;
  const size = lead.length === 0 ? 0 : lead.length * 8 - Math.clz32((lead[0] as number) << 24);
  const oddExponent = ((exponent.at(-1) ?? 0) & 1) === 1 && (exponent.length > 1 || (exponent[0] ?? 0) >= 3);
  return { kind: "rsa", bits: size, oddExponent };
}

/** Why a key is too weak or too strange to be certified or to certify; null where it is good. */
export function keyFault(key: PublicKeyKind): string | null {
  switch (key.kind) {
    case "ec":
      return ["P-256", "P-384", "P-521"].includes(key.curve) ? null : `curve \`${key.curve}\` is not allowed`;
    case "rsa":
      if (key.bits < 2048 || key.bits > 8192) {
        return `an RSA key has ${key.bits} bits; 2048 to 8192 are allowed`;
      }
      return key.oddExponent ? null : "an RSA key has an unsafe exponent";
    case "ed25519":
      return null;
    case "other":
      return `keys of type ${key.oid} are not allowed`;
  }
}

/**
 * The public key for node:crypto. Errors: `invalid-argument` where OpenSSL refuses it (a point off the curve).
 * HOT: per issuance. As text, since of any object Node first asks twice whether it is a key: 20 µs, where the import takes 10.
 */
export function publicKeyFromSpki(spki: Uint8Array): KeyObject {
  const base64 = Buffer.from(spki.buffer, spki.byteOffset, spki.length).toString("base64");
  try {
    return createPublicKey(`-----BEGIN PUBLIC KEY-----\n${base64}\n-----END PUBLIC KEY-----\n`);
  } catch (cause) {
    throw new EveryhopError("invalid-argument", "not a usable public key", { cause });
  }
}

/**
 * Parses a key that is to be certified and makes sure that it is strong enough and really a key.
 * Errors: `invalid-argument` with the reason. HOT: per issuance.
 */
export function checkedPublicKey(spki: Uint8Array): PublicKeyInfo {
  const info = parsePublicKeyInfo(spki);
  const fault = keyFault(info.key);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `the key is refused: ${fault}`);
  }
  const onCurve = info.key.kind === "ec" ? isPointOn(info.key.curve, info.bits) : null;
  if (onCurve === false) {
    throw new EveryhopError("invalid-argument", "not a usable public key: its point is not on the curve");
  }
  if (onCurve === null) {
    publicKeyFromSpki(spki);
  }
  return info;
}

/** True where `signature` is `key`'s on `message`. The algorithm must fit the key: nothing is guessed. */
export function verifySignature(
  algorithm: SignatureAlgorithm,
  key: KeyObject,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  const row = ALGORITHMS[algorithm];
  if (key.asymmetricKeyType !== row.family) {
    return false;
  }
  try {
    return verify(row.digest, message, key, signature);
  } catch {
    return false;
  }
}
