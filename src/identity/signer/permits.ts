import { EveryhopError } from "../../core/base/errors.ts";
import type { LogEntry } from "../../io/chained-log/chained-log.ts";
import type { Held, Prepared } from "./build.ts";

/** What waits to be signed. */
export interface Waiting {
  readonly prepared: Prepared;
  readonly by: Held;
  readonly entry: LogEntry;
}

const LIFE_MS = 60_000;
const MOST = 20_000;

/** Permits that were given and not used: each is worth one signature, for a minute, and they are bounded. */
export class Permits {
  readonly #waiting = new Map<string, Waiting & { readonly endsMs: number }>();
  readonly #random: (count: number) => Uint8Array;

  constructor(random: (count: number) => Uint8Array) {
    this.#random = random;
  }

  /** Names it by a token that cannot be guessed. */
  give(waiting: Waiting, now: number): string {
    this.#dropOld(now);
    const token = Buffer.from(this.#random(16)).toString("hex");
    this.#waiting.set(token, { ...waiting, endsMs: now + LIFE_MS });
    return token;
  }

  /** Errors: `failed-precondition` where it was never given, was used, or is too old. */
  take(token: string, now: number): Waiting {
    const waiting = this.#waiting.get(token);
    this.#waiting.delete(token);
    if (waiting === undefined || waiting.endsMs <= now) {
      throw new EveryhopError("failed-precondition", "this permit was never given, was used, or has expired");
    }
    return waiting;
  }

  /** The oldest come first. */
  #dropOld(now: number): void {
    for (const [token, { endsMs }] of this.#waiting) {
      if (endsMs > now && this.#waiting.size < MOST) {
        return;
      }
      this.#waiting.delete(token);
    }
  }
}
