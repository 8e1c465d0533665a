import type { KeyObject } from "node:crypto";
import { JWT_SVID_ALGORITHMS } from "../jose/algorithm.ts";
import type { Jwk } from "../jose/jwk.ts";
import { decodeJws, jsonObject } from "../jose/jws.ts";
import { audiencesOf, type JwtFault, verifyJwt } from "../jose/jwt.ts";
import { type JwtAuthority, jwtAuthorityKey } from "./bundle.ts";
import { type SpiffeId, spiffeIdFault, type TrustDomain, trustDomainOf } from "./id.ts";

export type JwtSvidFault = JwtFault | "no-spiffe-id" | "no-audience" | "wrong-audience" | "unknown-trust-domain";

export interface VerifiedJwtSvid {
  readonly ok: true;
  readonly id: SpiffeId;
  readonly trustDomain: TrustDomain;
  readonly audiences: readonly string[];
  readonly claims: Readonly<Record<string, unknown>>;
  readonly expiresAtMs: number;
  readonly issuedAtMs: number | null;
  readonly keyId: string;
}

export interface RefusedJwtSvid {
  readonly ok: false;
  readonly reason: JwtSvidFault;
  readonly message: string;
}

export type JwtAuthoritiesOf = (
  trustDomain: TrustDomain,
) => { readonly jwtAuthorities: readonly JwtAuthority[] } | undefined;

/** Header members that a JWT-SVID may have. SPEC: JWT-SVID §2. */
const HEADER_MEMBERS: ReadonlySet<string> = new Set(["alg", "kid", "typ"]);

/**
 * Verifies a JWT-SVID for `audience` at `now` (ms). `kid` and `exp` are required (as go-spiffe and SPIRE require them), and
 * the key is looked up in the bundle of `sub`'s own trust domain only. Never throws. SPEC: JWT-SVID §2, §3, §5.
 */
export function verifyJwtSvid(
  token: string,
  bundleOf: JwtAuthoritiesOf,
  audience: string,
  now: number,
  leewayMs = 0,
): VerifiedJwtSvid | RefusedJwtSvid {
  const claimed = claimedSubject(token);
  if (!claimed.ok) {
    return claimed;
  }
  const trustDomain = trustDomainOf(claimed.id);
  const bundle = bundleOf(trustDomain);
  if (bundle === undefined) {
    return refuse("unknown-trust-domain", `no bundle for the trust domain \`${trustDomain}\``);
  }
  const verified = verifyJwt(token, bundle.jwtAuthorities.map(asJwk), {
    algorithms: JWT_SVID_ALGORITHMS,
    requireKid: true,
    requireExpiry: true,
    now,
    leewayMs,
  });
  if (!verified.ok) {
    return verified;
  }
  const audiences = audiencesOf(verified.claims);
  if (audiences === null || audiences.length === 0) {
    return refuse("no-audience", "the token has no `aud`");
  }
  if (!audiences.includes(audience)) {
    return refuse("wrong-audience", "the token is for another audience");
  }
  return {
    ok: true,
    id: claimed.id,
    trustDomain,
    audiences,
    claims: verified.claims,
    expiresAtMs: verified.expiresAtMs as number,
    issuedAtMs: verified.issuedAtMs,
    keyId: verified.key.kid as string,
  };
}

function refuse(reason: JwtSvidFault, message: string): RefusedJwtSvid {
  return { ok: false, reason, message };
}

/** Whose token it says it is; needed to know whose keys to verify it with. */
function claimedSubject(token: string): { readonly ok: true; readonly id: SpiffeId } | RefusedJwtSvid {
  const decoded = decodeJws(token);
  if (!decoded.ok) {
    return decoded;
  }
  const { header, payload } = decoded;
  if (!JWT_SVID_ALGORITHMS.includes(header.alg)) {
    return refuse("algorithm-not-allowed", `algorithm \`${header.alg}\` is not one of JWT-SVID`);
  }
  const foreign = Object.keys(header.members).find((name) => !HEADER_MEMBERS.has(name));
  if (foreign !== undefined) {
    return refuse("unsupported-header", `a JWT-SVID's header has no \`${foreign.slice(0, 32)}\``);
  }
  if (Object.hasOwn(header.members, "typ") && header.typ !== "JWT" && header.typ !== "JOSE") {
    return refuse("unsupported-header", "`typ` is neither `JWT` nor `JOSE`");
  }
  const claims = jsonObject(payload);
  if (claims === null) {
    return refuse("malformed-claims", "the payload is not a JSON object with distinct keys");
  }
  const { sub } = claims;
  const fault = typeof sub === "string" ? spiffeIdFault(sub) : "is missing";
  return fault === null
    ? { ok: true, id: sub as SpiffeId }
    : refuse("no-spiffe-id", `\`sub\` is not a SPIFFE ID: ${fault}`);
}

const TYPES: Readonly<Record<string, { kty: "RSA" | "EC"; crv: string | null }>> = {
  prime256v1: { kty: "EC", crv: "P-256" },
  secp384r1: { kty: "EC", crv: "P-384" },
  secp521r1: { kty: "EC", crv: "P-521" },
};

const jwks = new WeakMap<JwtAuthority, Jwk>();

/** HOT: an authority in the form that the verifier takes, made once. */
function asJwk(authority: JwtAuthority): Jwk {
  let jwk = jwks.get(authority);
  if (jwk === undefined) {
    const key = jwtAuthorityKey(authority);
    jwk = { ...typeOf(key), kid: authority.keyId, use: null, keyOps: null, alg: null, key };
    jwks.set(authority, jwk);
  }
  return jwk;
}

function typeOf(key: KeyObject): { kty: "RSA" | "EC" | "OKP"; crv: string | null } {
  if (key.asymmetricKeyType === "rsa") {
    return { kty: "RSA", crv: null };
  }
  return TYPES[key.asymmetricKeyDetails?.namedCurve ?? ""] ?? { kty: "OKP", crv: null };
}

/** The claims of a JWT-SVID; times in whole seconds. SPEC: JWT-SVID §3. */
export function jwtSvidClaims(options: {
  readonly id: SpiffeId;
  readonly audiences: readonly string[];
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly issuer?: string;
  readonly jwtId?: string;
}): Readonly<Record<string, unknown>> {
  return {
    sub: options.id,
    aud: options.audiences,
    exp: Math.floor(options.expiresAtMs / 1000),
    iat: Math.floor(options.issuedAtMs / 1000),
    ...(options.issuer === undefined ? {} : { iss: options.issuer }),
    ...(options.jwtId === undefined ? {} : { jti: options.jwtId }),
  };
}
