import type { Clock } from "../../core/base/clock.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { decodeJws } from "../../core/jose/jws.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { NodeJwtSvid } from "./node-api.ts";

/** Tokens remembered; the one asked for longest ago makes room. */
const MAX_TOKENS = 1_000;
/** SPEC: a bearer token is short-lived: it is handed out again during the first half of its life. */
const REUSE = 0.5;

type Sign = (entryId: string, audience: readonly string[]) => Promise<NodeJwtSvid>;

/** JWT-SVIDs, signed when asked for and remembered for a while: a server that is away for a moment is not noticed. */
export class JwtSvids {
  readonly #sign: Sign;
  readonly #clock: Clock;
  readonly #tokens = new Map<string, NodeJwtSvid & { readonly keyId: string }>();
  readonly #running = new Map<string, Promise<NodeJwtSvid>>();
  readonly #onNew: () => void;

  /** `onNew` is called with each token signed. */
  constructor(sign: Sign, clock: Clock, onNew: () => void = () => {}) {
    this.#sign = sign;
    this.#clock = clock;
    this.#onNew = onNew;
  }

  /** All that is remembered, to keep it and to take it up again. */
  contents(): [string, NodeJwtSvid][] {
    return [...this.#tokens].map(([key, { token, issuedAtMs, expiresAtMs }]) => [
      key,
      { token, issuedAtMs, expiresAtMs },
    ]);
  }

  restore(tokens: readonly (readonly [string, NodeJwtSvid])[]): void {
    const now = this.#clock.now();
    for (const [key, token] of tokens.filter(([, { expiresAtMs }]) => expiresAtMs > now)) {
      this.#remember(key, token);
    }
  }

  async token(entry: RegistrationEntry, audience: readonly string[]): Promise<string> {
    return (await this.svid(entry, audience)).token;
  }

  /** A token of `entry` for `audience`. Rejects as the node API does, unless an older token still serves. */
  async svid(entry: RegistrationEntry, audience: readonly string[]): Promise<NodeJwtSvid> {
    const key = JSON.stringify([entry.id, entry.revision, entry.spiffeId, audience]);
    const now = this.#clock.now();
    const known = this.#tokens.get(key);
    if (known !== undefined && now < known.issuedAtMs + (known.expiresAtMs - known.issuedAtMs) * REUSE) {
      this.#remember(key, known);
      return known;
    }
    try {
      const started = this.#running.get(key) ?? this.#sign(entry.id, audience).finally(() => this.#running.delete(key));
      this.#running.set(key, started);
      const signed = await started;
      this.#remember(key, signed);
      this.#onNew();
      return signed;
    } catch (error) {
      if (known !== undefined && now < known.expiresAtMs) {
        return known;
      }
      throw error;
    }
  }

  /** Forgets the tokens of identities that are no longer `kept`, and those signed by a key that is no longer `trusted`. */
  keep(kept: ReadonlySet<SpiffeId>, trusted: (keyId: string) => boolean): void {
    for (const [key, { keyId }] of this.#tokens) {
      if (!kept.has((JSON.parse(key) as [string, number, SpiffeId])[2]) || !trusted(keyId)) {
        this.#tokens.delete(key);
      }
    }
  }

  #remember(key: string, token: NodeJwtSvid): void {
    this.#tokens.delete(key);
    this.#tokens.set(key, { ...token, keyId: keyIdOf(token.token) });
    if (this.#tokens.size > MAX_TOKENS) {
      this.#tokens.delete(this.#tokens.keys().next().value as string);
    }
  }
}

function keyIdOf(token: string): string {
  const decoded = decodeJws(token);
  return decoded.ok ? (decoded.header.kid ?? "") : "";
}
