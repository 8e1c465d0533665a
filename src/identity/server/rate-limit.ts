import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";

interface Bucket {
  /** May be below zero: what is missing was promised to those who wait. */
  tokens: number;
  at: number;
}

/** Peers remembered at once; those that have their full allowance back are forgotten first. */
const MAX_PEERS = 10_000;
/** Who would have to wait longer is refused. */
const MAX_WAIT_MS = 10_000;

/** A token bucket per peer. Who asks for more than there is waits, as SPIRE's agents expect, but not for ever. */
export class RateLimiter {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: { readonly perSecond: number; readonly burst: number; readonly clock: Clock }) {
    this.#perSecond = options.perSecond;
    this.#burst = options.burst;
    this.#clock = options.clock;
  }

  /** Resolves when `peer` may do `count` things. Errors: `resource-exhausted` where that is never, or too far away. */
  async take(peer: string, count = 1): Promise<void> {
    if (count > this.#burst) {
      throw new EveryhopError("resource-exhausted", `${count} at once is more than the limit of ${this.#burst}`);
    }
    const bucket = this.#bucket(peer);
    const waitMs = ((count - bucket.tokens) / this.#perSecond) * 1_000;
    if (waitMs > MAX_WAIT_MS) {
      throw new EveryhopError("resource-exhausted", "too many requests from this address");
    }
    bucket.tokens -= count;
    if (waitMs > 0) {
      await new Promise<void>((resolve) => this.#clock.after(waitMs, resolve));
    }
  }

  #bucket(peer: string): Bucket {
    const now = this.#clock.now();
    const known = this.#buckets.get(peer);
    if (known !== undefined) {
      known.tokens = this.#refilled(known, now);
      known.at = now;
      return known;
    }
    if (this.#buckets.size >= MAX_PEERS) {
      this.#forget(now);
    }
    const bucket = { tokens: this.#burst, at: now };
    this.#buckets.set(peer, bucket);
    return bucket;
  }

  #refilled(bucket: Bucket, now: number): number {
    return Math.min(this.#burst, bucket.tokens + (Math.max(0, now - bucket.at) / 1_000) * this.#perSecond);
  }

  #forget(now: number): void {
    for (const [peer, bucket] of this.#buckets) {
      if (this.#refilled(bucket, now) >= this.#burst) {
        this.#buckets.delete(peer);
      }
    }
    if (this.#buckets.size >= MAX_PEERS) {
      throw new EveryhopError("resource-exhausted", "too many addresses at once");
    }
  }
}
