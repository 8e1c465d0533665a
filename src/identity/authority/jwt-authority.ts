import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, type KeyObject } from "node:crypto";
import { EveryhopError } from "../../core/base/errors.ts";
import { joseFromDer } from "../../core/jose/ecdsa.ts";
import { assembleJws, decodeJws, jsonObject, jwsSigningInput } from "../../core/jose/jws.ts";
import type { JwtAuthority as BundleKey } from "../../core/spiffe/bundle.ts";
import { type SpiffeId, trustDomainOf } from "../../core/spiffe/id.ts";
import { jwtSvidClaims } from "../../core/spiffe/jwt-svid.ts";
import { formatPem, parsePem } from "../../core/x509/pem.ts";
import { intend, Signer } from "./permit.ts";
import type { AuthorityContext } from "./x509-authority.ts";

export interface JwtSvidRequest {
  readonly spiffeId: SpiffeId;
  /** At least one. */
  readonly audiences: readonly string[];
  readonly ttlMs: number;
  readonly entryId: string;
  readonly issuer?: string;
  /** Puts a `jti` in. Default false. */
  readonly includeJwtId?: boolean;
}

export interface IssuedJwtSvid {
  readonly id: SpiffeId;
  /** A bearer secret: never logged, never stored. */
  readonly token: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly keyId: string;
}

const MAX_AUDIENCES = 64;
const MAX_AUDIENCE_BYTES = 2048;

/** One signing key for JWT-SVIDs: ES256. */
export class JwtSigningAuthority {
  /** `kid`. */
  readonly id: string;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
  readonly publicKey: Uint8Array;
  readonly #signer: Signer;
  readonly #context: AuthorityContext;

  constructor(context: AuthorityContext, id: string, key: KeyObject, issuedAtMs: number, notAfterMs: number) {
    this.id = id;
    this.issuedAtMs = issuedAtMs;
    this.notAfterMs = notAfterMs;
    this.publicKey = createPublicKey(key).export({ format: "der", type: "spki" });
    this.#signer = new Signer(key);
    this.#context = context;
  }

  /** How it stands in the bundle. */
  inBundle(tainted: boolean): BundleKey {
    return { keyId: this.id, publicKey: this.publicKey, expiresAtMs: this.notAfterMs, tainted };
  }

  /** Builds, lints, intends, signs, records. Errors: `invalid-argument`, `failed-precondition`. */
  async issue(request: JwtSvidRequest, now: number): Promise<IssuedJwtSvid> {
    const { spiffeId, audiences, entryId } = request;
    const { trustDomain, journal, random } = this.#context;
    if (trustDomainOf(spiffeId) !== trustDomain) {
      throw new EveryhopError("invalid-argument", `\`${spiffeId}\` is not in the trust domain \`${trustDomain}\``);
    }
    checkAudiences(audiences);
    const serial = Buffer.from(random(16)).toString("hex");
    const issuedAtMs = Math.floor(now / 1000) * 1000;
    const expiresAtMs = Math.floor(Math.min(now + request.ttlMs, this.notAfterMs) / 1000) * 1000;
    if (expiresAtMs <= now) {
      throw new EveryhopError("failed-precondition", `nothing can be signed for \`${spiffeId}\` that is still valid`);
    }
    const claims = jwtSvidClaims({
      id: spiffeId,
      audiences,
      issuedAtMs,
      expiresAtMs,
      ...(request.issuer === undefined ? {} : { issuer: request.issuer }),
      ...(request.includeJwtId === true ? { jwtId: serial } : {}),
    });
    const input = jwsSigningInput({ alg: "ES256", kid: this.id, typ: "JWT" }, JSON.stringify(claims));
    const lint = (own: Uint8Array) => lintJwtSvid(own, this.id, request, expiresAtMs);
    const intent = { kind: "jwt-svid", serial, spiffeId, entryId, authorityId: this.id } as const;
    const times = { notBeforeMs: issuedAtMs, notAfterMs: expiresAtMs };
    const permit = await intend(input, lint, { ...intent, ...times, dnsNames: [], audiences }, journal);
    const signed = this.#signer.sign(permit);
    const signature = joseFromDer(signed.signature, 32);
    if (signature === null) {
      throw new EveryhopError("internal", `the JWT key \`${this.id}\` is not of P-256`);
    }
    const token = assembleJws(signed.bytes, signature);
    await journal.record(serial, hash("sha256", token, "buffer"));
    return { id: spiffeId, token, issuedAtMs, expiresAtMs, keyId: this.id };
  }
}

function checkAudiences(audiences: readonly string[]): void {
  const tooLong = audiences.some((audience) => audience === "" || Buffer.byteLength(audience) > MAX_AUDIENCE_BYTES);
  if (audiences.length === 0 || audiences.length > MAX_AUDIENCES || tooLong) {
    throw new EveryhopError("invalid-argument", `a JWT-SVID needs 1 to ${MAX_AUDIENCES} audiences, none empty`);
  }
}

/** Reads the signing input again, with the parser that verifiers use. SPEC: JWT-SVID §2, §3. */
function lintJwtSvid(
  input: Uint8Array,
  keyId: string,
  request: JwtSvidRequest,
  expiresAtMs: number,
): readonly string[] {
  const decoded = decodeJws(`${Buffer.from(input).toString("latin1")}.AAAA`);
  const claims = decoded.ok ? jsonObject(decoded.payload) : null;
  if (!decoded.ok || claims === null) {
    return ["the token does not parse"];
  }
  const { header } = decoded;
  const checks: readonly (readonly [boolean, string])[] = [
    [header.alg === "ES256" && header.kid === keyId && header.typ === "JWT", "the header is not what was asked for"],
    [Object.keys(header.members).length === 3, "the header has members that nobody asked for"],
    [claims.sub === request.spiffeId, "`sub` is not the SPIFFE ID asked for"],
    [JSON.stringify(claims.aud) === JSON.stringify(request.audiences), "`aud` is not what was asked for"],
    [claims.exp === expiresAtMs / 1000, "`exp` is not what was asked for"],
  ];
  return checks.filter(([holds]) => !holds).map(([, fault]) => fault);
}

/** Makes a key, named by 32 random letters and digits as SPIRE's are; also returns what to keep of it. */
export function createJwtAuthority(
  context: AuthorityContext,
  ttlMs: number,
  now: number,
): { readonly authority: JwtSigningAuthority; readonly pem: string } {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const id = Buffer.from(context.random(16)).toString("hex");
  const authority = new JwtSigningAuthority(context, id, privateKey, now, now + ttlMs);
  return { authority, pem: formatPem("PRIVATE KEY", privateKey.export({ format: "der", type: "pkcs8" })) };
}

/** Reads what `createJwtAuthority` gave to keep. Errors: `storage-failed`. */
export function loadJwtAuthority(
  context: AuthorityContext,
  pem: string,
  kept: { readonly id: string; readonly issuedAtMs: number; readonly notAfterMs: number },
): JwtSigningAuthority {
  try {
    const [block] = parsePem(pem);
    const key = createPrivateKey({ key: Buffer.from(block?.der ?? []), format: "der", type: "pkcs8" });
    return new JwtSigningAuthority(context, kept.id, key, kept.issuedAtMs, kept.notAfterMs);
  } catch (cause) {
    throw new EveryhopError("storage-failed", `the stored JWT key \`${kept.id}\` cannot be used`, { cause });
  }
}
