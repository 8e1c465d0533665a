/** Two byte streams joined: what one says the other hears, no faster than it reads. Half-close is passed on. */
import type { Pipe, PipeHandler } from "./pipe.ts";

/** Why a splice ended. */
export type SpliceEnd = { readonly side: "downstream" | "upstream"; readonly error: Error | null };

export class Splice {
  /** Bytes from downstream to upstream, and back. */
  received = 0;
  sent = 0;
  #ended = 0;
  #over = false;
  readonly #downstream: Pipe;
  readonly #upstream: Pipe;
  readonly #onOver: (end: SpliceEnd) => void;
  readonly #now: () => number;
  #lastMoveMs: number;

  /** `onOver` is called once, when one of the streams is gone and the other told so. */
  constructor(downstream: Pipe, upstream: Pipe, now: () => number, onOver: (end: SpliceEnd) => void) {
    this.#downstream = downstream;
    this.#upstream = upstream;
    this.#onOver = onOver;
    this.#now = now;
    this.#lastMoveMs = now();
    downstream.handler = this.#half("downstream", upstream, downstream);
    upstream.handler = this.#half("upstream", downstream, upstream);
    downstream.resume();
    upstream.resume();
  }

  /**
   * A connection may be silent for as long as it likes (a pool of database connections is); one that is closed on one side
   * and silent on the other for `halfClosedMs` is given up.
   */
  tick(nowMs: number, halfClosedMs: number): void {
    if (this.#ended === 1 && nowMs - this.#lastMoveMs > halfClosedMs) {
      this.close();
    }
  }

  #half(side: "downstream" | "upstream", other: Pipe, self: Pipe): PipeHandler {
    return {
      onData: (chunk) => {
        if (side === "downstream") {
          this.received += chunk.length;
        } else {
          this.sent += chunk.length;
        }
        this.#lastMoveMs = this.#now();
        if (!other.write(chunk)) {
          self.pause();
        }
      },
      onDrain: () => other.resume(),
      onEnd: () => {
        this.#ended++;
        other.end();
      },
      onClose: (error) => {
        if (this.#over) {
          return;
        }
        this.#over = true;
        // After a clean end of both directions the other closes by itself once its last bytes are written.
        if (error !== null || this.#ended < 2) {
          other.destroy();
        }
        this.#onOver({ side, error });
      },
    };
  }

  close(): void {
    this.#downstream.destroy();
    this.#upstream.destroy();
  }
}
