import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { activatable, type Rotated, revocable, type Slot, type SlotState, slotIn, taintable } from "./slots.ts";

export interface RotationOptions<A extends Rotated> {
  readonly clock: Clock;
  /** What was kept of an earlier run. */
  readonly slots: readonly Slot<A>[];
  /** Makes a new authority and keeps its key. */
  readonly create: (now: number) => Promise<A>;
  /** Keeps the slots and publishes them; durable and published once it returns. */
  readonly publish: (slots: readonly Slot<A>[]) => Promise<void>;
  /** Destroys the key of an authority that is no longer in any slot. */
  readonly discard: (authority: A) => Promise<void>;
  /** Whether its key is there. One whose key is gone signs nothing more. Default: always. */
  readonly isHeld?: (id: string) => boolean;
  readonly onError: (error: unknown) => void;
}

const DAY = 86_400_000;

/** When a successor is made: with half the life left, at most 30 days. As SPIRE. */
export function prepareAtMs({ issuedAtMs, notAfterMs }: Rotated): number {
  return notAfterMs - Math.min((notAfterMs - issuedAtMs) / 2, 30 * DAY);
}

/** When the successor takes over: with a sixth of the life left, at most 7 days. As SPIRE. */
export function activateAtMs({ issuedAtMs, notAfterMs }: Rotated): number {
  return notAfterMs - Math.min((notAfterMs - issuedAtMs) / 6, 7 * DAY);
}

/** After a failure; and never more often than this. */
const RETRY_MS = 1_000;

/**
 * Keeps one authority active: makes the next in time, publishes it, lets it take over, and drops what expired. One operation
 * at a time, in the order asked for. INVARIANT: nothing signs that was not published before.
 */
export class Rotation<A extends Rotated> {
  readonly #options: RotationOptions<A>;
  #slots: readonly Slot<A>[];
  #queue: Promise<unknown> = Promise.resolve();
  #cancel = (): void => {};
  /** Whether the clock drives it. */
  #running = false;

  constructor(options: RotationOptions<A>) {
    this.#options = options;
    this.#slots = options.slots;
  }

  get slots(): readonly Slot<A>[] {
    return this.#slots;
  }

  /** Makes sure that one is active, and from then on works by the clock. Errors: whatever `create` and `publish` throw. */
  async start(): Promise<void> {
    await this.#enqueue(() => this.#advance());
    this.#running = true;
    this.#schedule(null);
  }

  stop(): void {
    this.#running = false;
    this.#cancel();
  }

  /** The one that signs. Errors: `unavailable` where it expired and no other could be made. */
  active(): A {
    const slot = this.#find("active");
    if (slot === undefined || slot.authority.notAfterMs <= this.#options.clock.now()) {
      throw new EveryhopError("unavailable", "no authority is active", {
        hint: "the last one expired before a new one could be made: see the server's log",
      });
    }
    return slot.authority;
  }

  /** Makes the next authority and publishes it; one that was prepared before is replaced. */
  prepare(): Promise<A> {
    return this.#enqueue(() => this.#prepare());
  }

  /** Lets the prepared authority sign from now on. Errors: as `activatable`. */
  activate(id: string): Promise<A> {
    return this.#enqueue(() => this.#activate(activatable(this.#slots, id)));
  }

  /** Marks an old authority as no longer secure. Errors: as `taintable`. */
  taint(id: string): Promise<A> {
    return this.#enqueue(async () => {
      const old = taintable(this.#slots, id);
      await this.#put(this.#slots.map((slot) => (slot === old ? { ...slot, tainted: true } : slot)));
      return old.authority;
    });
  }

  /** Takes an old authority out of the bundle, now, and destroys its key. Errors: as `revocable`. */
  revoke(id: string): Promise<A> {
    return this.#enqueue(async () => {
      const old = revocable(this.#slots, id);
      await this.#put(this.#slots.filter((slot) => slot !== old));
      await this.#options.discard(old.authority);
      return old.authority;
    });
  }

  /** Looks now whether anything is due: a key may be gone. */
  async check(): Promise<void> {
    if (this.#running) {
      await this.#enqueue(() => this.#advance()).then(
        () => this.#schedule(null),
        (error: unknown) => this.#failed(error),
      );
    }
  }

  /** Where `which` holds of the active one another takes over at once; of a prepared one, it is made anew. */
  replace(which: (authority: A) => boolean): Promise<void> {
    return this.#enqueue(async () => {
      const prepared = this.#find("prepared");
      if (prepared !== undefined && which(prepared.authority)) {
        await this.#prepare();
      }
      const active = this.#find("active");
      if (this.#running && active !== undefined && which(active.authority)) {
        if (this.#find("prepared") === undefined) {
          await this.#prepare();
        }
        await this.#activate(this.#find("prepared") as Slot<A>);
      }
    });
  }

  /** Resolves once all that was asked for so far is done. For tests. */
  settled(): Promise<void> {
    return this.#enqueue(async () => {});
  }

  #find(state: SlotState): Slot<A> | undefined {
    return slotIn(this.#slots, state);
  }

  async #put(slots: readonly Slot<A>[]): Promise<void> {
    await this.#options.publish(slots);
    this.#slots = slots;
    this.#schedule(null);
  }

  async #prepare(): Promise<A> {
    const replaced = this.#find("prepared");
    const authority = await this.#options.create(this.#options.clock.now());
    await this.#put([
      ...this.#slots.filter((slot) => slot !== replaced),
      { authority, state: "prepared", tainted: false },
    ]);
    if (replaced !== undefined) {
      await this.#options.discard(replaced.authority);
    }
    return authority;
  }

  async #activate(prepared: Slot<A>): Promise<A> {
    await this.#put(
      this.#slots.map((slot) => {
        if (slot === prepared) {
          return { ...slot, state: "active" as const };
        }
        return slot.state === "active" ? { ...slot, state: "old" as const } : slot;
      }),
    );
    return prepared.authority;
  }

  /** Whatever is due by now. */
  async #advance(): Promise<void> {
    const { isHeld = () => true, clock } = this.#options;
    const now = clock.now();
    const lost = (slot: Slot<A>): boolean => slot.state !== "old" && !isHeld(slot.authority.id);
    if (this.#slots.some(lost)) {
      await this.#put(this.#slots.map((slot) => (lost(slot) ? { ...slot, state: "old" as const } : slot)));
    }
    const expired = this.#slots.filter(({ authority }) => authority.notAfterMs <= now);
    if (expired.length > 0) {
      await this.#put(this.#slots.filter((slot) => !expired.includes(slot)));
      for (const { authority } of expired) {
        await this.#options.discard(authority);
      }
    }
    const active = this.#find("active")?.authority;
    if (this.#find("prepared") === undefined && (active === undefined || now >= prepareAtMs(active))) {
      await this.#prepare();
    }
    const prepared = this.#find("prepared");
    if (prepared !== undefined && (active === undefined || now >= activateAtMs(active))) {
      await this.#activate(prepared);
    }
  }

  #schedule(retryInMs: number | null): void {
    this.#cancel();
    if (!this.#running) {
      return;
    }
    const delay = retryInMs ?? Math.max(0, this.#nextDueMs() - this.#options.clock.now());
    this.#cancel = this.#options.clock.after(delay, () => {
      void this.check();
    });
  }

  #failed(error: unknown): void {
    this.#options.onError(error);
    this.#schedule(RETRY_MS);
  }

  #nextDueMs(): number {
    const active = this.#find("active")?.authority;
    const due = this.#slots.map(({ authority }) => authority.notAfterMs);
    if (active !== undefined) {
      due.push(this.#find("prepared") === undefined ? prepareAtMs(active) : activateAtMs(active));
    }
    return Math.min(...due);
  }

  /** RACE: an operator's order and the clock's may meet; each runs to its end before the next begins. */
  #enqueue<T>(operation: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(operation);
    this.#queue = result.catch(() => {});
    return result;
  }
}
