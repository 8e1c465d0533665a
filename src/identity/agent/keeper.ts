/**
 * Keeps on disk what the agent can hand out, so that a restart while the server is away is not noticed.
 * INVARIANT: what was withdrawn is off the disk before it is withdrawn in memory: killed at any moment, the agent comes back
 * with nothing that it knew to be gone.
 */
import type { Clock } from "../../core/base/clock.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { Log } from "../../io/log.ts";
import type { CacheChange } from "./cache.ts";
import { formatKept, type KeptIdentities, parseKept } from "./kept-document.ts";
import type { KeptStore } from "./kept-store.ts";

export interface KeeperOptions {
  readonly store: Pick<KeptStore, "identities" | "generation">;
  readonly agentId: () => SpiffeId;
  /** What there is to keep now, or will be after `change`. */
  readonly contents: (change?: CacheChange) => Omit<KeptIdentities, "agentId" | "generation">;
  readonly clock: Clock;
  readonly log: Log;
}

const NAME = "identities";
/** What changes within so long is written once. */
const SAVE_AFTER_MS = 50;
const MAX_SAVE_AFTER_MS = 2_000;
/** Of the agent's time, writing takes at most one part in so many. */
const SAVE_SHARE = 3;

export class Keeper {
  readonly #options: KeeperOptions;
  #generation = 0;
  #queue: Promise<void> = Promise.resolve();
  #cancelSave: (() => void) | null = null;
  #saveMs = 0;
  #failed = false;
  #closed = false;
  /** When what is on disk was written; null: nothing is. */
  savedAtMs: number | null = null;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** What an earlier run of this agent kept; null where there is nothing, or nothing to be believed. */
  async load(agentId: SpiffeId): Promise<KeptIdentities | null> {
    const { store, log } = this.#options;
    this.#generation = await store.generation.read();
    try {
      const bytes = await store.identities.read(NAME);
      const kept = bytes === null ? null : parseKept(bytes);
      if (kept === null) {
        return null;
      }
      if (kept.agentId !== agentId) {
        log.warn("what was kept is another agent's and is discarded", { agentId, keptOf: kept.agentId });
        return null;
      }
      if (kept.generation < this.#generation) {
        log.error("what was kept is an older copy and is discarded: was the data folder put back from a backup?", {
          generation: kept.generation,
          newest: this.#generation,
        });
        return null;
      }
      this.#generation = kept.generation;
      return kept;
    } catch (error) {
      log.error("what was kept cannot be read and is discarded", { error });
      return null;
    }
  }

  /** Something to keep has changed. */
  save(): void {
    if (this.#cancelSave === null && !this.#closed) {
      const waitMs = Math.min(MAX_SAVE_AFTER_MS, Math.max(SAVE_AFTER_MS, this.#saveMs * SAVE_SHARE));
      this.#cancelSave = this.#options.clock.after(waitMs, () => {
        this.#cancelSave = null;
        this.#enqueue(async () => void (await this.#write()));
      });
    }
  }

  /** Has `change`, which takes something away, on the disk before `apply` makes it so in memory. */
  withdraw(change: CacheChange, apply: () => void): Promise<void> {
    return this.#enqueue(async () => {
      if (!this.#closed && !(await this.#write(change))) {
        await this.#erase();
      }
      apply();
    });
  }

  /** Nothing is kept any more, and nothing will be. */
  async forget(): Promise<void> {
    this.#stop();
    await this.#enqueue(() => this.#erase());
  }

  /** Keeps what there is, and ends. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#stop();
      await this.#enqueue(async () => void (await this.#write()));
    }
  }

  #stop(): void {
    this.#closed = true;
    this.#cancelSave?.();
    this.#cancelSave = null;
  }

  /** One at a time: what was written last is what is on disk. */
  #enqueue(job: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(job);
    this.#queue = done.catch(() => {});
    return done;
  }

  /** Whether it is on the disk. */
  async #write(change?: CacheChange): Promise<boolean> {
    const { store, agentId, contents, clock, log } = this.#options;
    const startedAt = clock.now();
    const generation = this.#generation + 1;
    try {
      await store.identities.write(NAME, formatKept({ ...contents(change), agentId: agentId(), generation }));
      await store.generation.write(generation);
      this.#generation = generation;
      this.savedAtMs = clock.now();
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) {
        log.error("cannot keep identities on disk; a restart while the server is away would lose them", { error });
      }
      this.#failed = true;
    }
    this.#saveMs = clock.now() - startedAt;
    return !this.#failed;
  }

  async #erase(): Promise<void> {
    const { store, log } = this.#options;
    try {
      await store.identities.remove(NAME);
      this.savedAtMs = null;
    } catch (error) {
      // The disk is no longer ours to write: in memory it is withdrawn all the same.
      log.error("cannot take from the disk what was withdrawn", { error });
    }
    this.#generation += 1;
    await store.generation.write(this.#generation);
  }
}
