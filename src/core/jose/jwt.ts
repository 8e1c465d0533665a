import type { Jwk } from "./jwk.ts";
import { type JwsFault, type JwsHeader, jsonObject, type RefusedJws, type VerifyJwsOptions, verifyJws } from "./jws.ts";

export type JwtFault = JwsFault | "expired" | "not-yet-valid" | "no-expiry" | "malformed-claims";

export interface VerifyJwtOptions extends VerifyJwsOptions {
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** How far the issuer's clock may be off. Default 0. */
  readonly leewayMs?: number;
  /** Refuses a token without `exp`. Default false. */
  readonly requireExpiry?: boolean;
}

export interface VerifiedJwt {
  readonly ok: true;
  readonly header: JwsHeader;
  readonly claims: Readonly<Record<string, unknown>>;
  readonly key: Jwk;
  /** Null where it has none. */
  readonly expiresAtMs: number | null;
  readonly issuedAtMs: number | null;
}

/** Verifies signature, `exp` and `nbf` of a JWT; `iss`, `aud` and `sub` are the caller's to judge. Never throws. SPEC: RFC 7519 §7.2. */
export function verifyJwt(
  token: string,
  keys: readonly Jwk[],
  options: VerifyJwtOptions,
): VerifiedJwt | RefusedJws<JwtFault> {
  const verified = verifyJws(token, keys, options);
  if (!verified.ok) {
    return verified;
  }
  const refuse = (reason: JwtFault, message: string): RefusedJws<JwtFault> => ({ ok: false, reason, message });
  const claims = jsonObject(verified.payload);
  if (claims === null) {
    return refuse("malformed-claims", "the payload is not a JSON object with distinct keys");
  }
  const exp = numericDate(claims.exp);
  const nbf = numericDate(claims.nbf);
  const iat = numericDate(claims.iat);
  if (exp === "bad" || nbf === "bad" || iat === "bad") {
    return refuse("malformed-claims", "`exp`, `nbf` or `iat` is not a number");
  }
  if (exp === null && options.requireExpiry === true) {
    return refuse("no-expiry", "the token has no `exp`");
  }
  const leeway = options.leewayMs ?? 0;
  if (exp !== null && options.now >= exp + leeway) {
    return refuse("expired", `expired at ${isoTime(exp)}`);
  }
  if (nbf !== null && options.now < nbf - leeway) {
    return refuse("not-yet-valid", `not valid before ${isoTime(nbf)}`);
  }
  return { ok: true, header: verified.header, claims, key: verified.key, expiresAtMs: exp, issuedAtMs: iat };
}

/** A NumericDate in milliseconds. SPEC: RFC 7519 §2: it may have a fraction. */
function numericDate(claim: unknown): number | null | "bad" {
  if (claim === undefined) {
    return null;
  }
  return typeof claim === "number" && Number.isFinite(claim) ? claim * 1000 : "bad";
}

function isoTime(ms: number): string {
  return Math.abs(ms) < 8.64e15 ? new Date(ms).toISOString() : "a far day";
}

/** `aud` as a list; null where it is missing or neither text nor a list of texts. SPEC: RFC 7519 §4.1.3. */
export function audiencesOf(claims: Readonly<Record<string, unknown>>): readonly string[] | null {
  const { aud } = claims;
  if (typeof aud === "string") {
    return [aud];
  }
  return Array.isArray(aud) && aud.every((entry) => typeof entry === "string") ? aud : null;
}
