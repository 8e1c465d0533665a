/**
 * One token against one JWT rule. The order of checks matters, for it decides between 401 and 403: form, issuer, time,
 * audience, and the signature last. SOURCE: envoy source/extensions/filters/http/jwt_authn/authenticator.cc,
 * common/jwt/jwt.cc.
 */

import { type JwsAlgorithm, PUBLIC_KEY_ALGORITHMS } from "../jose/algorithm.ts";
import type { Jwk } from "../jose/jwk.ts";
import { decodeJws, jsonObject, verifyJws } from "../jose/jws.ts";
import type { Claims } from "./facts.ts";
import type { JwtRule } from "./resources.ts";

export type TokenFault =
  | "malformed"
  | "unknown-issuer"
  | "expired"
  | "not-yet-valid"
  | "wrong-audience"
  | "bad-signature";

export type TokenResult =
  | { readonly ok: true; readonly claims: Claims; readonly payload: string }
  | { readonly ok: false; readonly fault: TokenFault };

const CLOCK_SKEW_S = 60;

/** Symmetric keys are allowed as in Envoy: a rule's own `jwks` names them on purpose. */
const ALGORITHMS: readonly JwsAlgorithm[] = [...PUBLIC_KEY_ALGORITHMS, "HS256", "HS384", "HS512"];

const refuse = (fault: TokenFault): TokenResult => ({ ok: false, fault });

/** `keys` is null where the rule's key set is not to be had: no signature can then be good. */
export function checkToken(token: string, rule: JwtRule, keys: readonly Jwk[] | null, nowMs: number): TokenResult {
  // Envoy passes over empty parts: `a.b.c.` is `a.b.c`.
  const parts = token.split(".").filter((part) => part !== "");
  const compact = parts.join(".");
  const decoded = decodeJws(compact);
  const claims = decoded.ok ? jsonObject(decoded.payload) : null;
  if (claims === null) {
    return refuse("malformed");
  }
  const registered = readRegistered(claims);
  if (registered === null) {
    return refuse("malformed");
  }
  if (rule.issuer !== "" && rule.issuer !== registered.issuer) {
    return refuse("unknown-issuer");
  }
  const now = Math.floor(nowMs / 1_000);
  if (now + CLOCK_SKEW_S < registered.notBefore) {
    return refuse("not-yet-valid");
  }
  if (registered.expires !== 0 && now > registered.expires + CLOCK_SKEW_S) {
    return refuse("expired");
  }
  if (!isForUs(registered.audiences, rule.audiences)) {
    return refuse("wrong-audience");
  }
  if (keys === null || !verifyJws(compact, keys, { algorithms: ALGORITHMS }).ok) {
    return refuse("bad-signature");
  }
  return { ok: true, claims, payload: parts[1] ?? "" };
}

interface Registered {
  readonly issuer: string;
  readonly audiences: readonly string[];
  /** Seconds since the epoch; 0 where the claim is missing. */
  readonly notBefore: number;
  readonly expires: number;
}

/** Null where a registered claim has the wrong type. */
function readRegistered(claims: Claims): Registered | null {
  const { iss, sub, jti, aud } = claims;
  const times = [claims.iat, claims.nbf, claims.exp].map(readTime);
  const audiences = aud === undefined ? [] : typeof aud === "string" ? [aud] : aud;
  const isText = (value: unknown): boolean => value === undefined || typeof value === "string";
  if (![iss, sub, jti].every(isText) || times.includes(null) || !isTextList(audiences)) {
    return null;
  }
  return { issuer: typeof iss === "string" ? iss : "", audiences, notBefore: times[1] ?? 0, expires: times[2] ?? 0 };
}

const isTextList = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((item) => typeof item === "string");

/** A time as whole seconds; null where it is no number in range. */
function readTime(value: unknown): number | null {
  if (value === undefined) {
    return 0;
  }
  return typeof value === "number" && value >= 0 && value < 2 ** 64 ? Math.floor(value) : null;
}

/** Audiences are compared without `http://`, `https://` and a slash at the end. */
function isForUs(audiences: readonly string[], wanted: readonly string[]): boolean {
  if (wanted.length === 0) {
    return true;
  }
  const known = new Set(wanted.map(plainAudience));
  return audiences.some((audience) => known.has(plainAudience(audience)));
}

const plainAudience = (audience: string): string => audience.replace(/^https?:\/\//, "").replace(/\/$/, "");
