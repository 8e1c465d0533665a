/** From an intent to a JWT-SVID's signing input, linted with the parser that verifiers use. SPEC: JWT-SVID §2, §3. */
import { EveryhopError } from "../../core/base/errors.ts";
import { joseFromDer } from "../../core/jose/ecdsa.ts";
import { assembleJws, decodeJws, jsonObject, jwsSigningInput } from "../../core/jose/jws.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import { jwtSvidClaims } from "../../core/spiffe/jwt-svid.ts";
import type { TokenIntent } from "../intent/intent.ts";
import { type Held, type Prepared, type Rules, refuseOutside } from "./build.ts";
import { ecdsaHalfOf, jwsAlgorithmOf } from "./key-types.ts";
import { permitFor } from "./permit.ts";

export function prepareToken(intent: TokenIntent, by: Held, { trustDomain, ceilings }: Rules, now: number): Prepared {
  refuseOutside(intent.spiffeId, trustDomain);
  if (intent.audiences.length === 0 || intent.audiences.includes("")) {
    throw new EveryhopError("invalid-argument", "a JWT-SVID needs at least one audience, none empty");
  }
  const alg = jwsAlgorithmOf(by.signing.type);
  const claims = jwtSvidClaims({
    id: intent.spiffeId as SpiffeId,
    audiences: intent.audiences,
    issuedAtMs: intent.notBeforeMs,
    expiresAtMs: intent.notAfterMs,
    ...(intent.issuer === null ? {} : { issuer: intent.issuer }),
    ...(intent.includeJwtId ? { jwtId: intent.serial } : {}),
  });
  const input = jwsSigningInput({ alg, kid: by.id, typ: "JWT" }, JSON.stringify(claims));
  const half = ecdsaHalfOf(by.signing.type);
  return {
    permit: permitFor(input, intent.spiffeId, (own) => lint(own, alg, by.id, intent, now, ceilings.maxJwtSvidTtlMs)),
    assemble: ({ bytes, signature }) => {
      const jose = half === null ? signature : joseFromDer(signature, half);
      if (jose === null) {
        throw new EveryhopError("internal", `the JWT key \`${by.id}\` gave a signature of another kind`);
      }
      return Buffer.from(assembleJws(bytes, jose), "latin1");
    },
  };
}

function lint(
  input: Uint8Array,
  alg: string,
  keyId: string,
  intent: TokenIntent,
  now: number,
  maxLifetimeMs: number,
): readonly string[] {
  const decoded = decodeJws(`${Buffer.from(input).toString("latin1")}.AAAA`);
  const claims = decoded.ok ? jsonObject(decoded.payload) : null;
  if (!decoded.ok || claims === null) {
    return ["the token does not parse"];
  }
  const { header } = decoded;
  const checks: readonly (readonly [boolean, string])[] = [
    [header.alg === alg && header.kid === keyId && header.typ === "JWT", "the header is not what was asked for"],
    [Object.keys(header.members).length === 3, "the header has members that nobody asked for"],
    [claims.sub === intent.spiffeId, "`sub` is not the SPIFFE ID asked for"],
    [JSON.stringify(claims.aud) === JSON.stringify(intent.audiences), "`aud` is not what was asked for"],
    [claims.iat === intent.notBeforeMs / 1000 && intent.notBeforeMs <= now, "`iat` is not what was asked for"],
    [claims.exp === intent.notAfterMs / 1000 && intent.notAfterMs > now, "`exp` is not what was asked for"],
    [intent.notAfterMs - now <= maxLifetimeMs, "lives too long"],
    [claims.iss === (intent.issuer ?? undefined), "`iss` is not what was asked for"],
    [claims.jti === (intent.includeJwtId ? intent.serial : undefined), "`jti` is not what was asked for"],
  ];
  return checks.filter(([holds]) => !holds).map(([, fault]) => fault);
}
