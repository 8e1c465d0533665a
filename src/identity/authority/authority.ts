import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { type Bundle, emptyBundle } from "../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { randomOctets } from "../../io/random.ts";
import type { StateFile } from "../../io/state-file.ts";
import type { HeldKey } from "../intent/intent.ts";
import type { KeyType } from "../intent/key-type.ts";
import type { SigningService } from "../intent/service.ts";
import type { Journal } from "./journal.ts";
import { createJwtAuthority, type IssuedJwtSvid, JwtSigningAuthority, type JwtSvidRequest } from "./jwt-authority.ts";
import { type KeptAuthorities, type KeptSlot, readKept, writeKept } from "./kept.ts";
import { Rotation } from "./rotation.ts";
import type { AuthorityContext } from "./sign.ts";
import type { Rotated, Slot } from "./slots.ts";
import { chainFault, type Upstream } from "./upstream.ts";
import {
  createCertifiedAuthority,
  createX509Authority,
  type DownstreamCaRequest,
  type IssuedX509Svid,
  X509Authority,
  type X509SvidRequest,
} from "./x509-authority.ts";

export interface AuthorityOptions {
  readonly trustDomain: TrustDomain;
  /** Has the keys. */
  readonly signer: SigningService;
  /** Remembers which authority stands where. */
  readonly kept: StateFile;
  readonly journal: Journal;
  /** Who certifies our CAs; default: they are roots. */
  readonly upstream?: Upstream | null;
  readonly clock: Clock;
  /** Life of a CA and of a JWT key. Default 24 h. */
  readonly caTtlMs?: number;
  /** Default ec-p256. */
  readonly caKeyType?: KeyType;
  /** Default: as `caKeyType`. */
  readonly jwtKeyType?: KeyType;
  /** Default 1 h. What is longer than a sixth of `caTtlMs` may come out shorter: nothing outlives its CA. */
  readonly x509SvidTtlMs?: number;
  /** Default 5 min. */
  readonly jwtSvidTtlMs?: number;
  /** `iss` of JWT-SVIDs; default none. */
  readonly jwtIssuer?: string;
  /** What the bundle tells others to poll at. Default 5 min, at most a tenth of `caTtlMs`. */
  readonly refreshHintMs?: number;
  readonly random?: (count: number) => Uint8Array;
  /**
   * Tells the other servers of the trust domain of our bundle, at the start and before each change of it takes effect. `fresh`:
   * nothing is known of an earlier run, which may have signed with keys that are lost.
   */
  readonly announce?: (bundle: Bundle, fresh: boolean) => Promise<void>;
  /** Told of failures to rotate; it is tried again every second. */
  readonly onError?: (error: unknown) => void;
}

type Optional<T, K extends keyof T> = Omit<T, K> & Partial<Pick<T, K>>;

const HOUR = 3_600_000;
/** After a CA that lost its place under the upstream authority could not be replaced. */
const UPSTREAM_RETRY_MS = 5_000;

/** What signs for a trust domain: its CAs, its JWT keys, their rotation, and the bundle that follows. The keys are the signer's. */
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
  readonly #unwatch: (() => void)[];

  private constructor(options: AuthorityOptions, kept: KeptAuthorities, loaded: Slots, context: AuthorityContext) {
    this.#options = options;
    this.#kept = kept;
    this.#slots = loaded;
    this.#context = context;
    const { clock, signer, onError = () => {} } = options;
    const isHeld = (id: string): boolean => signer.keys.value.has(id);
    const shared = { clock, onError, isHeld };
    this.x509 = new Rotation<X509Authority>({
      ...shared,
      slots: loaded.x509,
      create: (now) => this.#createX509(now),
      publish: (slots) => this.#publish({ x509: slots }),
      discard: (authority) => signer.discard("x509", authority.id),
    });
    this.jwt = new Rotation<JwtSigningAuthority>({
      ...shared,
      slots: loaded.jwt,
      create: (now) => this.#createJwt(now),
      publish: (slots) => this.#publish({ jwt: slots }),
      discard: (authority) => signer.discard("jwt", authority.id),
    });
    this.bundle = new Cell<Bundle>(emptyBundle(options.trustDomain));
    this.bundle.set(this.#bundleNow());
    // A signer that lost its keys (they were in memory) gets new ones at once; what the lost ones signed stays valid.
    this.#unwatch = [
      signer.keys.watch(() => {
        void this.x509.check();
        void this.jwt.check();
      }),
    ];
  }

  /** Loads what was kept, makes what is missing, and begins to rotate. Errors: `storage-failed`, `permission-denied`. */
  static async open(options: AuthorityOptions): Promise<Authority> {
    const { trustDomain, journal, signer, random = randomOctets } = options;
    const context: AuthorityContext = { trustDomain, journal, signer, random };
    const known = await readKept(options.kept);
    const kept = known ?? { sequence: 0n, x509: [], jwt: [] };
    const authority = new Authority(options, kept, load(context, kept), context);
    try {
      await authority.#discardStrays();
      await options.announce?.(authority.bundle.value, known === null);
      await authority.x509.start();
      await authority.jwt.start();
      authority.#followUpstream();
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
    for (const end of this.#unwatch) {
      end();
    }
    this.x509.stop();
    this.jwt.stop();
    await Promise.all([this.x509.settled(), this.jwt.settled()]);
  }

  /** Who has the keys. */
  get signer(): SigningService {
    return this.#options.signer;
  }

  get #caTtlMs(): number {
    return this.#options.caTtlMs ?? 24 * HOUR;
  }

  /** Who certifies our CAs; null: they are roots. */
  get upstream(): Upstream | null {
    return this.#options.upstream ?? null;
  }

  #createX509(now: number): Promise<X509Authority> {
    const { caKeyType = "ec-p256" } = this.#options;
    return this.upstream === null
      ? createX509Authority(this.#context, caKeyType, this.#caTtlMs, now)
      : createCertifiedAuthority(this.#context, this.upstream, caKeyType, this.#caTtlMs, now);
  }

  /** INVARIANT: known above before it is in our own bundle, and in that before it signs. */
  async #createJwt(now: number): Promise<JwtSigningAuthority> {
    const { jwtKeyType, caKeyType = "ec-p256" } = this.#options;
    const authority = await createJwtAuthority(this.#context, jwtKeyType ?? caKeyType, this.#caTtlMs, now);
    await this.upstream?.publish?.(authority.inBundle(false));
    return authority;
  }

  /** Certifies the CA of a server below us; DER, its certificate first. Errors: as X509Authority.certify. */
  certifyDownstream(request: Optional<DownstreamCaRequest, "ttlMs">): Promise<readonly Uint8Array[]> {
    const ttlMs = Math.min(request.ttlMs || this.#caTtlMs, this.#caTtlMs);
    return this.x509.active().certify({ ...request, ttlMs }, this.#options.clock.now());
  }

  /** Where what is above us is tainted or taken out, another CA takes over at once: what hangs below it is replaced after that. */
  #followUpstream(): void {
    const { upstream, clock, onError = () => {} } = this.#options;
    if (upstream === null || upstream === undefined) {
      return;
    }
    let cancel = (): void => {};
    const isFaulty = ({ chain }: X509Authority): boolean =>
      chain.length > 0 && chainFault(chain, upstream.bundle.value, clock.now()) !== null;
    const replace = (): void => {
      cancel();
      this.x509.replace(isFaulty).catch((error: unknown) => {
        onError(error);
        cancel = clock.after(UPSTREAM_RETRY_MS, replace);
      });
    };
    this.#unwatch.push(upstream.bundle.watch(replace), () => cancel());
    replace();
  }

  /** Destroys keys that no slot names: a crash between making one and recording it leaves such. */
  async #discardStrays(): Promise<void> {
    const { signer } = this.#options;
    const known = new Set([...this.#slots.x509, ...this.#slots.jwt].map(({ authority }) => authority.id));
    for (const { use, id } of [...signer.keys.value.values()].filter((key) => !known.has(key.id))) {
      await signer.discard(use, id);
    }
  }

  /** Keeps and publishes the slots of one kind. RACE: both kinds rotate on their own; writes go one after the other. */
  #publish(changed: Partial<Slots>): Promise<void> {
    const write = async (): Promise<void> => {
      const slots = { ...this.#slots, ...changed };
      const sequence = this.#kept.sequence + 1n;
      const kept = {
        sequence,
        x509: slots.x509.map((slot) => keptSlot(slot, slot.authority.published)),
        jwt: slots.jwt.map((slot) => keptSlot(slot, [slot.authority.publicKey])),
      };
      await writeKept(this.#options.kept, kept);
      this.#kept = kept;
      this.#slots = slots;
      const bundle = this.#bundleNow();
      await this.#options.announce?.(bundle, false);
      this.bundle.set(bundle);
    };
    const done = this.#writing.then(write);
    this.#writing = done.catch(() => {});
    return done;
  }

  #bundleNow(): Bundle {
    const { x509, jwt } = this.#slots;
    return {
      trustDomain: this.#options.trustDomain,
      // Whoever is certified by others is believed by their roots, which are in their bundle.
      x509Authorities: x509
        .filter(({ authority }) => authority.upstreamId === null)
        .map(({ authority }) => authority.certificate.der),
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

function load(context: AuthorityContext, kept: KeptAuthorities): Slots {
  const { signer } = context;
  const x509 = kept.x509.map((slot) => {
    const key = heldKey(signer, slot, "x509");
    const [certificate, ...above] = slot.published ?? key?.chain ?? [];
    const authority = new X509Authority(context, parseCertificate(certificate ?? missing(slot, "x509")), above);
    return { ...standing(slot, key), authority };
  });
  const jwt = kept.jwt.map((slot) => {
    const key = heldKey(signer, slot, "jwt");
    const publicKey = slot.published?.[0] ?? key?.spki ?? missing(slot, "jwt");
    const authority = new JwtSigningAuthority(context, slot.id, publicKey, slot.issuedAtMs, slot.notAfterMs);
    return { ...standing(slot, key), authority };
  });
  return { x509, jwt };
}

/** The key of a slot; null where it was lost with the signer that had it in memory, or is not needed any more. */
function heldKey(signer: SigningService, slot: KeptSlot, use: HeldKey["use"]): HeldKey | null {
  const key = signer.keys.value.get(slot.id);
  if (key === undefined && signer.durable && slot.state !== "old") {
    return missing(slot, use);
  }
  return key?.use === use ? key : null;
}

function missing({ id }: KeptSlot, use: HeldKey["use"]): never {
  throw new EveryhopError("storage-failed", `the signing key \`${use}-${id}\` is missing`, {
    hint: "restore the key folder from a backup; or remove the data folder, and every workload joins a new trust domain authority",
  });
}

/** What a lost key signed stays valid, so it stays in the bundle until it expires. */
function standing({ state, tainted }: KeptSlot, key: HeldKey | null): Pick<Slot<Rotated>, "state" | "tainted"> {
  return { state: key === null ? "old" : state, tainted };
}

function keptSlot({ authority, state, tainted }: Slot<Rotated>, published: readonly Uint8Array[]): KeptSlot {
  const { id, issuedAtMs, notAfterMs } = authority;
  return { id, state, tainted, issuedAtMs, notAfterMs, published };
}
