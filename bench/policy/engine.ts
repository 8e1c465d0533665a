/**
 * The question that every engine is asked: `count` rules, each that one caller may GET one exact path, and a request that only the last
 * of them allows. Exact values, since every engine can index those; what an engine does with them is what is measured.
 */
import { median } from "../measure.ts";

export interface Engine {
  readonly name: string;
  /** Why it cannot be measured here; null: it can. */
  readonly missing: string | null;
  /** Nanoseconds of processor time of one decision; NaN: less than can be measured. */
  measure(count: number): number | Promise<number>;
}

export interface Budget {
  readonly rounds: number;
  readonly roundMs: number;
}

export const CALLER = "cluster.local/ns/prod/sa/web";
export const METHOD = "GET";
export const path = (index: number): string => `/api/v1/item-${index}`;

export const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

/** Microseconds of processor time this thread has used. */
export function usedMicros(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

/** The median of some rounds' nanoseconds of one call; a first round warms up. `batch`: calls between two looks at the clock. */
export function cost(action: () => unknown, { rounds, roundMs }: Budget, batch = 1_000): number {
  const each = times(rounds + 1, () => {
    const until = performance.now() + roundMs;
    const before = usedMicros();
    let calls = 0;
    do {
      for (let call = 0; call < batch; call++) {
        action();
      }
      calls += batch;
    } while (performance.now() < until);
    return ((usedMicros() - before) * 1_000) / calls;
  });
  return median(each.slice(1));
}

export const text = (ns: number): string =>
  Number.isNaN(ns)
    ? "not seen"
    : ns < 1_000
      ? `${ns.toFixed(0)} ns`
      : ns < 1e6
        ? `${(ns / 1_000).toFixed(1)} us`
        : `${(ns / 1e6).toFixed(2)} ms`;
