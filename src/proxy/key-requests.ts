/** Asks the control plane for newer key sets, and lets requests wait a moment for them. */
import type { Clock } from "../core/base/clock.ts";

/** How long a request waits; then its token is judged with what there is. */
const WAIT_MS = 2_000;
/** One set is asked for at most this often: a forged token must not make everyone wait. */
const EVERY_MS = 5_000;
const MAX_SETS = 1_000;

export class KeyRequests {
  readonly #clock: Clock;
  readonly #asked = new Map<string, number>();
  #waiting = new Set<() => void>();
  /** Tells the control plane. */
  ask: (uri: string) => void = () => {};

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether it is worth waiting: the set was not asked for just now. `done` is then called, once; the result gives up. */
  want(uri: string, done: () => void): (() => void) | null {
    const now = this.#clock.now();
    const last = this.#asked.get(uri);
    if (last !== undefined && now - last < EVERY_MS && now - last > WAIT_MS) {
      return null;
    }
    if (last === undefined || now - last >= EVERY_MS) {
      if (this.#asked.size >= MAX_SETS) {
        this.#asked.clear();
      }
      this.#asked.set(uri, now);
      // RACE: asked once the request waits: an answer must find it waiting.
      queueMicrotask(() => this.ask(uri));
    }
    return this.#wait(done);
  }

  #wait(done: () => void): () => void {
    const finish = (): void => {
      giveUp();
      done();
    };
    const cancel = this.#clock.after(WAIT_MS, finish);
    const giveUp = (): void => {
      cancel();
      this.#waiting.delete(finish);
    };
    this.#waiting.add(finish);
    return giveUp;
  }

  /** Another snapshot is in force: whoever waits looks again. */
  changed(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const finish of waiting) {
      finish();
    }
  }
}
