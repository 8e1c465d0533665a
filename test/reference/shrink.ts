/** Makes a failing scenario smaller while it still fails: documents, list items, fields and characters go one by one. */
import type { Scenario } from "./generate.ts";

interface Failing {
  readonly scenario: Scenario;
}

/** `fails` says how a scenario fails, null where it does not (or is none). */
export function shrink<T extends Failing>(found: T, fails: (scenario: Scenario) => T | null): T {
  let best = found;
  for (let tries = 0, progress = true; progress && tries < 2_000; ) {
    progress = false;
    for (const smaller of smallerValues(best.scenario, 0)) {
      tries++;
      const failing = fails(smaller as Scenario);
      if (failing !== null) {
        best = failing;
        progress = true;
        break;
      }
    }
  }
  return best;
}

/** What a scenario cannot be without. */
const KEPT = new Set([
  "seed",
  "mesh",
  "apiVersion",
  "kind",
  "metadata",
  "name",
  "destination",
  "source",
  "requests",
  "documents",
]);

/** Every value with one part less. */
function* smallerValues(value: unknown, depth: number): Generator<unknown> {
  if (Array.isArray(value)) {
    for (const [at, item] of value.entries()) {
      yield value.toSpliced(at, 1);
      for (const smaller of smallerValues(item, depth + 1)) {
        yield value.with(at, smaller);
      }
    }
  } else if (typeof value === "object" && value !== null) {
    for (const [key, item] of Object.entries(value)) {
      if (!KEPT.has(key)) {
        const { [key]: _, ...rest } = value as Record<string, unknown>;
        yield rest;
      }
      if (key !== "mesh" && key !== "jwks") {
        for (const smaller of smallerValues(item, depth + 1)) {
          yield { ...value, [key]: smaller };
        }
      }
    }
  }
}
