import { createPublicKey, createSecretKey, type JsonWebKey, type KeyObject } from "node:crypto";
import { EveryhopError } from "../base/errors.ts";
import { ALGORITHMS, isJwsAlgorithm, type JwsAlgorithm, type KeyType } from "./algorithm.ts";
import { decodeBase64Url } from "./base64url.ts";
import { parseStrictJson } from "./json.ts";
import { isRocaModulus } from "./roca.ts";

/** A key that can verify, parsed and found strong enough. SPEC: RFC 7517. */
export interface Jwk {
  readonly kty: KeyType;
  readonly crv: string | null;
  readonly kid: string | null;
  readonly use: string | null;
  readonly keyOps: readonly string[] | null;
  /** The one algorithm it may be used with; null is any that fits its type. */
  readonly alg: JwsAlgorithm | null;
  readonly key: KeyObject;
}

const MAX_KEYS = 256;
const MAX_JWKS_BYTES = 1024 * 1024;

function jwkError(what: string): EveryhopError {
  return new EveryhopError("invalid-argument", `malformed JWK: ${what}`);
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function optionalText(jwk: Readonly<Record<string, unknown>>, name: string): string | null {
  const value = jwk[name];
  if (value !== undefined && typeof value !== "string") {
    throw jwkError(`\`${name}\` is not text`);
  }
  return value ?? null;
}

/**
 * Parses a public (or symmetric) JWK. Private members are ignored. Refused: unknown types and curves, RSA below 2048 bits or
 * with an even or tiny exponent or of the ROCA kind, points off the curve, an `alg` that does not fit the key.
 * Errors: `invalid-argument`.
 */
export function parseJwk(value: unknown): Jwk {
  if (!isRecord(value)) {
    throw jwkError("not an object");
  }
  const alg = optionalText(value, "alg");
  if (alg !== null && !isJwsAlgorithm(alg)) {
    throw jwkError(`algorithm \`${alg}\` is not for signatures`);
  }
  const keyOps = value.key_ops;
  if (keyOps !== undefined && !(Array.isArray(keyOps) && keyOps.every((op) => typeof op === "string"))) {
    throw jwkError("`key_ops` is not a list of texts");
  }
  const { kty, crv, key } = parseKeyMaterial(value);
  const wanted = alg === null ? null : ALGORITHMS[alg];
  if (wanted !== null && (wanted.kty !== kty || (wanted.crv !== null && wanted.crv !== crv))) {
    throw jwkError(`algorithm \`${alg}\` does not fit the key`);
  }
  if (kty === "oct" && alg !== null && (key.symmetricKeySize ?? 0) < minimumSecret(alg)) {
    throw jwkError("a secret shorter than its digest");
  }
  return {
    kty,
    crv,
    kid: optionalText(value, "kid"),
    use: optionalText(value, "use"),
    keyOps: keyOps ?? null,
    alg,
    key,
  };
}

/** SPEC: RFC 7518 §3.2: a secret is at least as long as the digest. */
export function minimumSecret(alg: JwsAlgorithm): number {
  return Number(alg.slice(2)) / 8;
}

type KeyMaterial = Pick<Jwk, "kty" | "crv" | "key">;

function parseKeyMaterial(jwk: Readonly<Record<string, unknown>>): KeyMaterial {
  switch (jwk.kty) {
    case "RSA":
      return { kty: "RSA", crv: null, key: rsaKey(octets(jwk, "n"), octets(jwk, "e")) };
    case "EC":
    case "OKP":
      return curveKey(jwk, jwk.kty);
    case "oct":
      return { kty: "oct", crv: null, key: createSecretKey(octets(jwk, "k")) };
    default:
      throw jwkError("unknown key type");
  }
}

function octets(jwk: Readonly<Record<string, unknown>>, name: string): Buffer {
  const text = jwk[name];
  const bytes = typeof text === "string" && text.length < 8192 ? decodeBase64Url(text) : null;
  if (bytes === null || bytes.length === 0) {
    throw jwkError(`\`${name}\` is missing or not base64url`);
  }
  return bytes;
}

function rsaKey(modulus: Buffer, exponent: Buffer): KeyObject {
  const bits = modulus.length * 8 - Math.clz32((modulus[0] as number) << 24);
  if (bits < 2048 || bits > 8192) {
    throw jwkError(`an RSA key of ${bits} bits; 2048 to 8192 are allowed`);
  }
  const e = exponent.length <= 6 ? exponent.readUIntBE(0, exponent.length) : 0;
  if (e < 3 || e % 2 === 0) {
    throw jwkError("an unsafe RSA exponent");
  }
  if (isRocaModulus(modulus)) {
    throw jwkError("an RSA key with the ROCA weakness");
  }
  const jwk = { kty: "RSA", n: modulus.toString("base64url"), e: exponent.toString("base64url") };
  return importKey(jwk);
}

const COORDINATE_OCTETS: Readonly<Record<string, number>> = { "P-256": 32, "P-384": 48, "P-521": 66 };

function curveKey(jwk: Readonly<Record<string, unknown>>, kty: "EC" | "OKP"): KeyMaterial {
  const crv = optionalText(jwk, "crv") ?? "";
  const x = octets(jwk, "x");
  if (kty === "OKP") {
    if (crv !== "Ed25519" || x.length !== 32) {
      throw jwkError(`curve \`${crv}\` is not for signatures`);
    }
    return { kty, crv, key: importKey({ kty, crv, x: x.toString("base64url") }) };
  }
  const y = octets(jwk, "y");
  const size = Object.hasOwn(COORDINATE_OCTETS, crv) ? COORDINATE_OCTETS[crv] : undefined;
  if (x.length !== size || y.length !== size) {
    throw jwkError(`not a point on \`${crv}\``);
  }
  return { kty, crv, key: importKey({ kty, crv, x: x.toString("base64url"), y: y.toString("base64url") }) };
}

function importKey(jwk: JsonWebKey): KeyObject {
  try {
    return createPublicKey({ key: jwk, format: "jwk" });
  } catch (cause) {
    throw new EveryhopError("invalid-argument", "malformed JWK: OpenSSL refuses the key", { cause });
  }
}

export interface Jwks {
  readonly keys: readonly Jwk[];
  /** Why keys were left out, by their index. */
  readonly ignored: readonly { readonly index: number; readonly reason: string }[];
}

/**
 * Parses a JWK Set (text, or JSON already parsed). Keys that cannot be used are left out, as RFC 7517 §5 wants, and said.
 * Left out as well: secrets in a set that has public keys (a published set cannot hold any), and keys of one type and use
 * that share a `kid` (which of them was meant is anyone's guess). Errors: `invalid-argument` where it is no set at all.
 */
export function parseJwks(source: string | Readonly<Record<string, unknown>>): Jwks {
  if (typeof source === "string" && source.length > MAX_JWKS_BYTES) {
    throw new EveryhopError("invalid-argument", "malformed JWK Set: too large");
  }
  const set = typeof source === "string" ? parseStrictJson(source) : source;
  if (!isRecord(set) || !Array.isArray(set.keys) || set.keys.length > MAX_KEYS) {
    throw new EveryhopError("invalid-argument", "malformed JWK Set: `keys` is missing, no list or too long");
  }
  const uses = new Map<string, number>();
  for (const value of set.keys) {
    uses.set(nameOf(value), (uses.get(nameOf(value)) ?? 0) + 1);
  }
  const mixed = set.keys.some((value) => isRecord(value) && value.kty !== "oct");
  const keys: Jwk[] = [];
  const ignored: { index: number; reason: string }[] = [];
  for (const [index, value] of set.keys.entries()) {
    try {
      if (isRecord(value) && typeof value.kid === "string" && (uses.get(nameOf(value)) ?? 0) > 1) {
        throw jwkError("another key has the same `kid`");
      }
      if (mixed && isRecord(value) && value.kty === "oct") {
        throw jwkError("a secret among public keys");
      }
      keys.push(parseJwk(value));
    } catch (error) {
      ignored.push({ index, reason: error instanceof Error ? error.message : String(error) });
    }
  }
  return { keys, ignored };
}

/** What must be distinct within a set. SPEC: RFC 7517 §4.5: equivalent keys of different types may share a `kid`. */
function nameOf(value: unknown): string {
  return isRecord(value) ? JSON.stringify([value.kid, value.kty, value.use]) : "";
}

/** The public JWK of a key, with its members in a fixed order. */
export function exportJwk(key: KeyObject, members: { kid?: string; use?: string; alg?: string } = {}): JsonWebKey {
  const { kty, crv, x, y, n, e } = key.export({ format: "jwk" });
  const material = { kty, kid: members.kid, use: members.use, alg: members.alg, crv, x, y, n, e };
  return Object.fromEntries(Object.entries(material).filter(([, value]) => value !== undefined));
}
