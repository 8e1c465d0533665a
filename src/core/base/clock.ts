/** Time as an argument: long-lived objects take a Clock, pure functions take `now` in milliseconds since the epoch. */
export interface Clock {
  now(): number;
  /** Calls `fire` once after `delayMs`; the function returned cancels it. */
  after(delayMs: number, fire: () => void): () => void;
}

/** A clock that only moves when told to; timers that fall due fire in order. For tests of every layer. */
export class FakeClock implements Clock {
  #now: number;
  #timers: { at: number; fire: () => void }[] = [];

  constructor(startMs = Date.UTC(2030, 0, 1)) {
    this.#now = startMs;
  }

  now(): number {
    return this.#now;
  }

  after(delayMs: number, fire: () => void): () => void {
    const timer = { at: this.#now + delayMs, fire };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Moves time on by `byMs`, firing what falls due on the way, timers set meanwhile included. */
  advance(byMs: number): void {
    const end = this.#now + byMs;
    for (;;) {
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) {
        break;
      }
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#now = Math.max(this.#now, due.at);
      due.fire();
    }
    this.#now = end;
  }
}
