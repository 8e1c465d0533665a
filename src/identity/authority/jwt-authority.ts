import { EveryhopError } from "../../core/base/errors.ts";
import type { JwtAuthority as BundleKey } from "../../core/spiffe/bundle.ts";
import { type SpiffeId, trustDomainOf } from "../../core/spiffe/id.ts";
import type { KeyType } from "../intent/key-type.ts";
import { type AuthorityContext, newSerial, signIntent, wholeSeconds } from "./sign.ts";

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

/** One key for JWT-SVIDs. Its private half is the signer's. */
export class JwtSigningAuthority {
  /** `kid`. */
  readonly id: string;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
  readonly publicKey: Uint8Array;
  readonly #context: AuthorityContext;

  constructor(context: AuthorityContext, id: string, publicKey: Uint8Array, issuedAtMs: number, notAfterMs: number) {
    this.id = id;
    this.issuedAtMs = issuedAtMs;
    this.notAfterMs = notAfterMs;
    this.publicKey = publicKey;
    this.#context = context;
  }

  /** How it stands in the bundle. */
  inBundle(tainted: boolean): BundleKey {
    return { keyId: this.id, publicKey: this.publicKey, expiresAtMs: this.notAfterMs, tainted };
  }

  /** Has a token signed. Errors: `invalid-argument`, `failed-precondition`, those of `signIntent`. */
  async issue(request: JwtSvidRequest, now: number): Promise<IssuedJwtSvid> {
    const { spiffeId, audiences, entryId, issuer = null, includeJwtId = false } = request;
    const { trustDomain, random } = this.#context;
    if (trustDomainOf(spiffeId) !== trustDomain) {
      throw new EveryhopError("invalid-argument", `\`${spiffeId}\` is not in the trust domain \`${trustDomain}\``);
    }
    checkAudiences(audiences);
    const notBeforeMs = wholeSeconds(now);
    const notAfterMs = wholeSeconds(Math.min(now + request.ttlMs, this.notAfterMs));
    if (notAfterMs <= now) {
      throw new EveryhopError("failed-precondition", `nothing can be signed for \`${spiffeId}\` that is still valid`);
    }
    const names = { authorityId: this.id, serial: newSerial(random, now), spiffeId, audiences, issuer, includeJwtId };
    const intent = { kind: "jwt-svid", ...names, notBeforeMs, notAfterMs } as const;
    const token = await signIntent(this.#context, intent, { spiffeId, entryId, dnsNames: [], audiences });
    return {
      id: spiffeId,
      token: Buffer.from(token).toString("latin1"),
      issuedAtMs: notBeforeMs,
      expiresAtMs: notAfterMs,
      keyId: this.id,
    };
  }
}

function checkAudiences(audiences: readonly string[]): void {
  const tooLong = audiences.some((audience) => audience === "" || Buffer.byteLength(audience) > MAX_AUDIENCE_BYTES);
  if (audiences.length === 0 || audiences.length > MAX_AUDIENCES || tooLong) {
    throw new EveryhopError("invalid-argument", `a JWT-SVID needs 1 to ${MAX_AUDIENCES} audiences, none empty`);
  }
}

/** Has a key made. Errors: the signer's. */
export async function createJwtAuthority(
  context: AuthorityContext,
  type: KeyType,
  ttlMs: number,
  now: number,
): Promise<JwtSigningAuthority> {
  const { id, spki } = await context.signer.createKey("jwt", type);
  return new JwtSigningAuthority(context, id, spki, now, now + ttlMs);
}
