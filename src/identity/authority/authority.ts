import { randomBytes } from "node:crypto";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { type Bundle, emptyBundle } from "../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import type { KeyStore } from "../../io/keys.ts";
import type { Journal } from "./journal.ts";
import {
  createJwtAuthority,
  type IssuedJwtSvid,
  type JwtSigningAuthority,
  type JwtSvidRequest,
  loadJwtAuthority,
} from "./jwt-authority.ts";
import { type KeptAuthorities, type KeptSlot, keyName, readKept, removeStrays, writeKept } from "./kept.ts";
import { Rotation } from "./rotation.ts";
import type { Rotated, Slot } from "./slots.ts";
import {
  type AuthorityContext,
  createX509Authority,
  type IssuedX509Svid,
  loadX509Authority,
  type X509Authority,
  type X509SvidRequest,
} from "./x509-authority.ts";

export interface AuthorityOptions {
  readonly trustDomain: TrustDomain;
  /** A folder (or memory) that nothing else uses. */
  readonly keys: KeyStore;
  readonly journal: Journal;
  readonly clock: Clock;
  /** Life of a CA and of a JWT key. Default 24 h. */
  readonly caTtlMs?: number;
  /** Default 1 h. What is longer than a sixth of `caTtlMs` may come out shorter: nothing outlives its CA. */
  readonly x509SvidTtlMs?: number;
  /** Default 5 min. */
  readonly jwtSvidTtlMs?: number;
  /** `iss` of JWT-SVIDs; default none. */
  readonly jwtIssuer?: string;
  /** What the bundle tells others to poll at. Default 5 min, at most a tenth of `caTtlMs`. */
  readonly refreshHintMs?: number;
  readonly random?: (count: number) => Uint8Array;
  /** Told of failures to rotate; it is tried again every second. */
  readonly onError?: (error: unknown) => void;
}

type Optional<T, K extends keyof T> = Omit<T, K> & Partial<Pick<T, K>>;

const HOUR = 3_600_000;

/** The signer of a trust domain: its CAs, its JWT keys, their rotation, and the bundle that follows from them. */
export class Authority {
  /** What verifies what this signs; a new value at every change. Old authorities stay in it until they expire. */
  readonly bundle: Cell<Bundle>;
  readonly x509: Rotation<X509Authority>;
  readonly jwt: Rotation<JwtSigningAuthority>;
  readonly #options: AuthorityOptions;
  readonly #context: AuthorityContext;
  #kept: KeptAuthorities;
  /** What was published last, of both kinds. */
  #slots: Slots;
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: AuthorityOptions, kept: KeptAuthorities, loaded: Slots, context: AuthorityContext) {
    this.#options = options;
    this.#kept = kept;
    this.#slots = loaded;
    this.#context = context;
    const { clock, keys, onError = () => {} } = options;
    const shared = { clock, onError };
    this.x509 = new Rotation<X509Authority>({
      ...shared,
      slots: loaded.x509,
      create: (now) => this.#createX509(now),
      publish: (slots) => this.#publish({ x509: slots }),
      discard: (authority) => keys.remove(keyName("x509", authority.id)),
    });
    this.jwt = new Rotation<JwtSigningAuthority>({
      ...shared,
      slots: loaded.jwt,
      create: (now) => this.#createJwt(now),
      publish: (slots) => this.#publish({ jwt: slots }),
      discard: (authority) => keys.remove(keyName("jwt", authority.id)),
    });
    this.bundle = new Cell<Bundle>(emptyBundle(options.trustDomain));
    this.bundle.set(this.#bundleNow());
  }

  /** Loads what was kept, makes what is missing, and begins to rotate. Errors: `storage-failed`, `permission-denied`. */
  static async open(options: AuthorityOptions): Promise<Authority> {
    const { trustDomain, journal, keys, random = randomBytes } = options;
    const context: AuthorityContext = { trustDomain, journal, random };
    const kept = (await readKept(keys)) ?? { sequence: 0n, x509: [], jwt: [] };
    await removeStrays(keys, kept);
    const authority = new Authority(options, kept, await load(context, keys, kept), context);
    try {
      await authority.x509.start();
      await authority.jwt.start();
    } catch (error) {
      await authority.close();
      throw error;
    }
    return authority;
  }

  /** Signs an X.509-SVID with the active CA. `ttlMs` of 0 or none is the default. Errors: as X509Authority.issue. */
  async issueX509Svid(request: Optional<X509SvidRequest, "ttlMs">): Promise<IssuedX509Svid> {
    const ttlMs = request.ttlMs || (this.#options.x509SvidTtlMs ?? HOUR);
    return this.x509.active().issue({ ...request, ttlMs }, this.#options.clock.now());
  }

  /** Signs a JWT-SVID with the active key. `ttlMs` of 0 or none is the default. Errors: as JwtSigningAuthority.issue. */
  async issueJwtSvid(request: Optional<JwtSvidRequest, "ttlMs">): Promise<IssuedJwtSvid> {
    const ttlMs = request.ttlMs || (this.#options.jwtSvidTtlMs ?? 300_000);
    const { jwtIssuer } = this.#options;
    const issuer = jwtIssuer === undefined ? {} : { issuer: jwtIssuer };
    return this.jwt.active().issue({ ...issuer, ...request, ttlMs }, this.#options.clock.now());
  }

  /** Ends rotation; what is under way is finished first. */
  async close(): Promise<void> {
    this.x509.stop();
    this.jwt.stop();
    await Promise.all([this.x509.settled(), this.jwt.settled()]);
  }

  get #caTtlMs(): number {
    return this.#options.caTtlMs ?? 24 * HOUR;
  }

  async #createX509(now: number): Promise<X509Authority> {
    const { authority, pem } = await createX509Authority(this.#context, this.#caTtlMs, now);
    await this.#options.keys.write(keyName("x509", authority.id), Buffer.from(pem));
    return authority;
  }

  async #createJwt(now: number): Promise<JwtSigningAuthority> {
    const { authority, pem } = createJwtAuthority(this.#context, this.#caTtlMs, now);
    await this.#options.keys.write(keyName("jwt", authority.id), Buffer.from(pem));
    return authority;
  }

  /** Keeps and publishes the slots of one kind. RACE: both kinds rotate on their own; writes go one after the other. */
  #publish(changed: Partial<Slots>): Promise<void> {
    const write = async (): Promise<void> => {
      const slots = { ...this.#slots, ...changed };
      const sequence = this.#kept.sequence + 1n;
      const kept = { sequence, x509: slots.x509.map(keptSlot), jwt: slots.jwt.map(keptSlot) };
      await writeKept(this.#options.keys, kept);
      this.#kept = kept;
      this.#slots = slots;
      this.bundle.set(this.#bundleNow());
    };
    const done = this.#writing.then(write);
    this.#writing = done.catch(() => {});
    return done;
  }

  #bundleNow(): Bundle {
    const { x509, jwt } = this.#slots;
    return {
      trustDomain: this.#options.trustDomain,
      x509Authorities: x509.map(({ authority }) => authority.certificate.der),
      taintedX509KeyIds: x509.filter(({ tainted }) => tainted).map(({ authority }) => authority.id),
      jwtAuthorities: jwt.map(({ authority, tainted }) => authority.inBundle(tainted)),
      sequence: this.#kept.sequence,
      refreshHintMs: Math.max(1_000, Math.min(this.#options.refreshHintMs ?? 300_000, this.#caTtlMs / 10)),
    };
  }
}

interface Slots {
  readonly x509: readonly Slot<X509Authority>[];
  readonly jwt: readonly Slot<JwtSigningAuthority>[];
}

async function load(context: AuthorityContext, keys: KeyStore, kept: KeptAuthorities): Promise<Slots> {
  const x509: Slot<X509Authority>[] = [];
  for (const slot of kept.x509) {
    const authority = loadX509Authority(context, await readKey(keys, keyName("x509", slot.id)));
    x509.push({ authority, state: slot.state, tainted: slot.tainted });
  }
  const jwt: Slot<JwtSigningAuthority>[] = [];
  for (const slot of kept.jwt) {
    const authority = loadJwtAuthority(context, await readKey(keys, keyName("jwt", slot.id)), slot);
    jwt.push({ authority, state: slot.state, tainted: slot.tainted });
  }
  return { x509, jwt };
}

async function readKey(keys: KeyStore, name: string): Promise<string> {
  const bytes = await keys.read(name);
  if (bytes === null) {
    throw new EveryhopError("storage-failed", `the signing key \`${name}\` is missing`, {
      hint: "restore the key folder from a backup; or remove it, and every workload joins a new trust domain authority",
    });
  }
  return Buffer.from(bytes).toString("utf8");
}

function keptSlot({ authority, state, tainted }: Slot<Rotated>): KeptSlot {
  const { id, issuedAtMs, notAfterMs } = authority;
  return { id, state, tainted, issuedAtMs, notAfterMs };
}
