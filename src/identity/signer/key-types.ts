import type { JwsAlgorithm } from "../../core/jose/algorithm.ts";
import type { SignatureAlgorithm } from "../../core/x509/algorithm.ts";
import type { KeyType } from "../intent/key-type.ts";

interface KeyTypeRow {
  readonly digest: string;
  readonly x509: SignatureAlgorithm;
  readonly jws: JwsAlgorithm;
  /** Octets of r and of s; null where it is no ECDSA. */
  readonly half: number | null;
}

const RSA: KeyTypeRow = { digest: "sha256", x509: "rsa-sha256", jws: "RS256", half: null };

/** INVARIANT: a type of key has one algorithm; nothing is negotiated. */
const ROWS: Readonly<Record<KeyType, KeyTypeRow>> = {
  "ec-p256": { digest: "sha256", x509: "ecdsa-sha256", jws: "ES256", half: 32 },
  "ec-p384": { digest: "sha384", x509: "ecdsa-sha384", jws: "ES384", half: 48 },
  "rsa-2048": RSA,
  "rsa-4096": RSA,
};

export const digestOfKey = (type: KeyType): string => ROWS[type].digest;
export const x509AlgorithmOf = (type: KeyType): SignatureAlgorithm => ROWS[type].x509;
export const jwsAlgorithmOf = (type: KeyType): JwsAlgorithm => ROWS[type].jws;
export const ecdsaHalfOf = (type: KeyType): number | null => ROWS[type].half;
