/** Denials on their way to the control plane: bounded, batched, the oldest dropped first. */
import { randomBytes } from "node:crypto";
import type { NearestMiss } from "../core/api/admin.ts";
import type { Verdict } from "../core/policy/verdict.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import type { Counter } from "../io/metrics.ts";

export interface DenialRecord {
  readonly id: string;
  readonly timeMs: number;
  /** Proven; null where nothing was. */
  readonly source: SpiffeId | null;
  readonly sourceIp: string;
  readonly port: number;
  /** Null for TCP. */
  readonly request: { readonly method: string; readonly path: string; readonly host: string } | null;
  readonly verdict: Verdict;
  /** What together would have allowed it. */
  readonly changes: readonly NearestMiss[];
  readonly snapshotVersion: number;
}

const MAX_WAITING = 1_000;
/** A nearest miss costs far more than a decision: a flood of denials gets them for the first of each second only. */
const NEAREST_MISSES_PER_SECOND = 20;
const ID_BYTES = 12;
const POOLED_IDS = 64;

export class Denials {
  readonly #dropped: Counter;
  #waiting: DenialRecord[] = [];
  #listener: (() => void) | null = null;
  #second = 0;
  #explained = 0;
  #pool: Buffer = Buffer.alloc(0);
  #poolAt = 0;

  constructor(dropped: Counter) {
    this.#dropped = dropped;
  }

  /** An opaque id: it leads an operator to the denial and tells a caller nothing. */
  newId(): string {
    if (this.#poolAt === this.#pool.length) {
      this.#pool = randomBytes(ID_BYTES * POOLED_IDS);
      this.#poolAt = 0;
    }
    const at = this.#poolAt;
    this.#poolAt = at + ID_BYTES;
    return this.#pool.toString("hex", at, at + ID_BYTES);
  }

  /** Whether there is time to say what would have been allowed. */
  mayExplain(nowMs: number): boolean {
    const second = Math.floor(nowMs / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#explained = 0;
    }
    this.#explained++;
    return this.#explained <= NEAREST_MISSES_PER_SECOND;
  }

  add(record: DenialRecord): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.#waiting.shift();
      this.#dropped.value++;
    }
    this.#waiting.push(record);
    this.#listener?.();
  }

  /** Takes up to `count` records, oldest first. */
  take(count: number): DenialRecord[] {
    return this.#waiting.splice(0, count);
  }

  /** Puts back what could not be sent. */
  putBack(records: readonly DenialRecord[]): void {
    const room = Math.max(0, MAX_WAITING - this.#waiting.length);
    this.#dropped.value += Math.max(0, records.length - room);
    this.#waiting.unshift(...records.slice(Math.max(0, records.length - room)));
  }

  /** Calls `listener` whenever a record is added. */
  listen(listener: (() => void) | null): void {
    this.#listener = listener;
  }
}
