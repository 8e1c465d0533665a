/** Keeps the cache as the server has it: told of changes by the server, asking now and then all the same. */
import { type ServiceError, status as Status } from "@grpc/grpc-js";
import { backoffMs } from "../../core/base/backoff.ts";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { hasLostAuthority, isDistrusted } from "../../core/spiffe/distrust.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import type { Log } from "../../io/log.ts";
import type { MakeProof } from "../attest/node/proof.ts";
import type { CacheChange, IdentityCache } from "./cache.ts";
import { newKey } from "./csr.ts";
import { NEW_TOKEN, nodeFailure } from "./failure.ts";
import { join } from "./join.ts";
import type { NodeApi, NodeJwtSvid, WatchedRevisions } from "./node-api.ts";
import { makeSvid, type OwnIdentity } from "./own-identity.ts";
import { renewAtMs, signDue } from "./sign.ts";

export interface SyncState {
  /** When the cache was last known to be what the server has; null: never. */
  readonly syncedAtMs: number | null;
  /** Why it is not now, or null. */
  readonly problem: string | null;
}

export interface NodeSyncOptions {
  readonly connect: (svid: X509Svid) => NodeApi;
  readonly cache: IdentityCache;
  readonly own: Cell<OwnIdentity>;
  /** How to attest again, where the node can; a join token cannot. */
  readonly prove: MakeProof | null;
  readonly save: (own: OwnIdentity) => Promise<void>;
  /** Applies `change`, which takes something away, once the disk says nothing else. */
  readonly withdraw: (change: CacheChange) => Promise<void>;
  /** When an earlier run, whose cache this one took up, was last in step; null: there is none. */
  readonly syncedAtMs: number | null;
  /** Called while the server cannot be reached: the operator may have given new authorities. */
  readonly refreshAuthorities: () => Promise<void>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** How often to ask although nothing was heard. */
  readonly pollMs?: number;
}

const POLL_MS = 30_000;
/** SPIRE's own servers do not push. */
const POLL_WITHOUT_PUSH_MS = 5_000;
const RETRY = { firstMs: 100, maxMs: 5_000 };

export class NodeSync {
  readonly state: Cell<SyncState>;
  readonly #options: NodeSyncOptions;
  #api: NodeApi;
  #ownRenewAtMs: number;
  #stopWatch: () => void = () => {};
  #cancelWatchRetry: () => void = () => {};
  #watchAttempt = 0;
  #seen: WatchedRevisions | null = null;
  #pushes = true;
  #entriesDirty = true;
  #bundleDirty = true;
  #federatedDirty = true;
  #askAtMs = 0;
  #attempt = 0;
  #wake: () => void = () => {};
  #woken = false;
  #closed = false;

  constructor(options: NodeSyncOptions) {
    this.#options = options;
    this.state = new Cell<SyncState>({ syncedAtMs: options.syncedAtMs, problem: null });
    this.#api = options.connect(options.own.value.svid);
    this.#ownRenewAtMs = this.#renewalOf(options.own.value);
    options.cache.onWanted(() => this.#poke());
  }

  /**
   * Runs until closed. Rejects where the agent can go on no longer: `unauthenticated` (the server knows it no more, or its SVID
   * expired while the server was away), `permission-denied` (banned).
   */
  async run(): Promise<void> {
    this.#watch();
    while (!this.#closed) {
      const pauseMs = await this.#pass();
      await this.#pause(pauseMs);
    }
  }

  /** Signs a JWT-SVID, past all caches. Rejects as the node API does. */
  signJwt(entryId: string, audience: readonly string[]): Promise<NodeJwtSvid> {
    return this.#api.signJwt(entryId, audience);
  }

  close(): void {
    this.#closed = true;
    this.#stopWatch();
    this.#cancelWatchRetry();
    this.#api.close();
    this.#poke();
  }

  /** One round; returns how long to wait for the next unless woken. */
  async #pass(): Promise<number> {
    const { cache, own, clock, log } = this.#options;
    try {
      cache.dropExpired();
      await this.#renewOwn();
      await this.#syncBundle();
      await this.#syncEntries();
      await this.#syncFederated();
      const failed = await this.#sign();
      this.state.set({ syncedAtMs: clock.now(), problem: null });
      if (failed > 0) {
        // Perhaps what we know is old: an entry that is gone, an authority that is new.
        this.#entriesDirty = true;
        this.#bundleDirty = true;
        return this.#retryMs();
      }
      this.#attempt = 0;
      return this.#idleMs();
    } catch (thrown) {
      const failure = nodeFailure(thrown);
      const { message } = failure.error;
      if (this.#closed) {
        return 0;
      }
      if (failure.kind === "banned") {
        throw failure.error;
      }
      if (failure.kind === "attest-again") {
        await this.#attestAgain(failure.error);
      } else if (failure.kind === "refused" && hasLostAuthority(own.value.svid.chain, cache.bundle, clock.now())) {
        const why = "the agent's SVID is of an authority that the server no longer knows";
        await this.#attestAgain(new EveryhopError("unauthenticated", why, { hint: NEW_TOKEN }));
      } else if (own.value.svid.notAfter <= clock.now()) {
        const why = `the agent's SVID expired while it could not be renewed: ${message}`;
        await this.#attestAgain(new EveryhopError("unauthenticated", why, { hint: NEW_TOKEN }));
      } else {
        if (this.state.value.problem !== message) {
          const { hint } = failure.error;
          log.warn("cannot sync with the server; what is cached is served on", {
            error: message,
            ...(hint === undefined ? {} : { hint }),
          });
        }
        this.state.set({ ...this.state.value, problem: message });
        cache.failMissing(message);
        await this.#options.refreshAuthorities();
      }
      return this.#retryMs();
    }
  }

  async #sign(): Promise<number> {
    try {
      return await signDue(this.#options, this.#api);
    } catch (thrown) {
      // The entries are known: who asks may be told that there is no SVID yet.
      const { syncedAtMs, problem } = this.state.value;
      this.state.set({ syncedAtMs: syncedAtMs ?? this.#options.clock.now(), problem });
      throw thrown;
    }
  }

  async #renewOwn(): Promise<void> {
    const { own, clock, log } = this.#options;
    if (clock.now() < this.#ownRenewAtMs) {
      return;
    }
    if (own.value.reattestable && this.#options.prove !== null) {
      await this.#attestAgain(new EveryhopError("unauthenticated", "the agent's SVID is due"));
      return;
    }
    const { keyDer, csr } = await newKey();
    try {
      const chain = await this.#api.renew(csr);
      await this.#become({ ...own.value, svid: makeSvid(chain, keyDer), obtainedAtMs: clock.now() });
      log.info("renewed the agent's SVID", { notAfter: new Date(own.value.svid.notAfter).toISOString() });
    } catch (thrown) {
      if (nodeFailure(thrown).kind !== "refused" || own.value.svid.notAfter <= clock.now()) {
        throw thrown;
      }
      // It still has its SVID, and workloads that need theirs.
      this.#ownRenewAtMs = clock.now() + this.#retryMs();
      log.error("cannot renew the agent's SVID", { error: thrown });
    }
  }

  /** Attests again where the node can; else throws `reason`. */
  async #attestAgain(reason: EveryhopError): Promise<void> {
    const { prove, own, log } = this.#options;
    if (prove === null || !own.value.reattestable) {
      throw reason;
    }
    log.info("attesting again", { reason: reason.message });
    await this.#become(await join({ ...this.#options, api: this.#api, prove }));
  }

  /** From here on the agent is `next`. The old connection is given up: it carries the old certificate. */
  async #become(next: OwnIdentity): Promise<void> {
    await this.#options.save(next);
    this.#options.own.set(next);
    this.#ownRenewAtMs = this.#renewalOf(next);
    this.#stopWatch();
    this.#api.close();
    this.#api = this.#options.connect(next.svid);
    this.#watch();
  }

  #renewalOf(own: OwnIdentity): number {
    return renewAtMs(own.obtainedAtMs, own.svid.notAfter, this.#options.random());
  }

  async #syncBundle(): Promise<void> {
    const { cache, own, clock, log } = this.#options;
    if (!this.#bundleDirty && !this.#timeToAsk()) {
      return;
    }
    this.#bundleDirty = false;
    try {
      const bundle = await this.#api.bundle();
      if (bundle.trustDomain !== cache.trustDomain) {
        throw new EveryhopError("unavailable", `the server is of the trust domain \`${bundle.trustDomain}\``);
      }
      await this.#take({ kind: "bundle", bundle });
      const now = clock.now();
      cache.renewAll(({ chain }) => isDistrusted(chain, bundle, now));
      if (isDistrusted(own.value.svid.chain, bundle, now)) {
        this.#ownRenewAtMs = 0;
      }
      await this.#api.postStatus(bundle.sequence).catch((error) => log.debug("the server takes no status", { error }));
    } catch (error) {
      this.#bundleDirty = true;
      throw error;
    }
  }

  async #syncEntries(): Promise<void> {
    const { cache, clock, log } = this.#options;
    if (!this.#entriesDirty && !this.#timeToAsk()) {
      return;
    }
    this.#entriesDirty = false;
    try {
      const before = cache.entries.size;
      const entries = await this.#api.entries(cache.entries);
      await this.#take({ kind: "entries", entries });
      this.#askAtMs = clock.now() + this.#pollMs();
      // The server tells of a federated bundle as of an entry: by a new revision.
      this.#federatedDirty = true;
      if (cache.entries.size !== before) {
        log.info("entries changed", { entries: cache.entries.size, before });
      }
    } catch (error) {
      this.#entriesDirty = true;
      throw error;
    }
  }

  async #syncFederated(): Promise<void> {
    const { cache, log } = this.#options;
    const wanted = new Set([...cache.entries.values()].flatMap(({ federatesWith }) => federatesWith));
    for (const gone of cache.federated.filter((name) => !wanted.has(name))) {
      await this.#take({ kind: "no-bundle", trustDomain: gone });
    }
    const stale = this.#federatedDirty;
    for (const name of wanted) {
      if (stale || cache.bundleOf(name) === undefined) {
        const bundle = await this.#api.federatedBundle(name);
        if (bundle === null) {
          log.debug("the server has no bundle of a federated trust domain", { trustDomain: name });
          await this.#take({ kind: "no-bundle", trustDomain: name });
        } else if (bundle.trustDomain === name) {
          await this.#take({ kind: "bundle", bundle });
        }
      }
    }
    this.#federatedDirty = false;
  }

  async #take(change: CacheChange): Promise<void> {
    const { cache, withdraw } = this.#options;
    if (cache.withdraws(change)) {
      await withdraw(change);
    } else {
      cache.apply(change);
    }
  }

  #watch(): void {
    const { clock, random, log } = this.#options;
    this.#cancelWatchRetry();
    this.#stopWatch = this.#api.watch(
      (revisions) => {
        this.#watchAttempt = 0;
        const seen = this.#seen;
        this.#seen = revisions;
        this.#entriesDirty ||= seen?.entries !== revisions.entries;
        this.#bundleDirty ||= seen?.bundle !== revisions.bundle;
        this.#poke();
      },
      (error: ServiceError) => {
        this.#seen = null;
        if (error.code === Status.UNIMPLEMENTED) {
          log.info("the server does not push changes; polling instead", { everyMs: POLL_WITHOUT_PUSH_MS });
          this.#pushes = false;
          this.#askAtMs = Math.min(this.#askAtMs, clock.now() + POLL_WITHOUT_PUSH_MS);
          this.#poke();
          return;
        }
        // What it means for the agent (banned, evicted) is found out by asking.
        this.#entriesDirty = true;
        const waitMs = backoffMs(this.#watchAttempt++, RETRY, random());
        this.#cancelWatchRetry = clock.after(waitMs, () => this.#closed || this.#watch());
        this.#poke();
      },
    );
  }

  #timeToAsk(): boolean {
    return this.#options.clock.now() >= this.#askAtMs;
  }

  #pollMs(): number {
    const { pollMs = POLL_MS } = this.#options;
    return this.#pushes ? pollMs : Math.min(pollMs, POLL_WITHOUT_PUSH_MS);
  }

  #idleMs(): number {
    const { cache, clock } = this.#options;
    const next = Math.min(this.#askAtMs, this.#ownRenewAtMs, cache.nextAt() ?? Number.POSITIVE_INFINITY);
    return Math.max(0, next - clock.now());
  }

  /** Short lifetimes are not slept away: a wait is at most a tenth of what is left of the agent's own SVID. */
  #retryMs(): number {
    const { own, clock, random } = this.#options;
    const leftMs = own.value.svid.notAfter - clock.now();
    const maxMs = Math.max(RETRY.firstMs, Math.min(RETRY.maxMs, leftMs / 10));
    return backoffMs(this.#attempt++, { ...RETRY, maxMs }, random());
  }

  #poke(): void {
    this.#woken = true;
    this.#wake();
  }

  async #pause(ms: number): Promise<void> {
    if (this.#woken || this.#closed) {
      this.#woken = false;
      return;
    }
    await new Promise<void>((resolve) => {
      const cancel = this.#options.clock.after(ms, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
    this.#wake = () => {};
    this.#woken = false;
  }
}
