import type { RegistrationEntry } from "./entry.ts";
import type { Selector } from "./selector.ts";

/** An entry that does not match, and what it lacks. */
export interface NearMiss {
  readonly entry: RegistrationEntry;
  /** Selectors that the entry demands and the workload does not have; at least one. */
  readonly missing: readonly Selector[];
  /** How many of its selectors the workload does have. */
  readonly matched: number;
  /** What the workload has in place of each missing one: its selectors of the same kind (`unix:uid`). */
  readonly instead: Readonly<Record<string, readonly Selector[]>>;
}

/**
 * The entries that come nearest to matching a workload: those with anything in common first, then fewest missing, most
 * matched, by id. Answers "why did my workload get no identity?".
 */
export function nearMisses(
  entries: readonly RegistrationEntry[],
  found: Iterable<Selector>,
  limit = 5,
): readonly NearMiss[] {
  const have = new Set(found);
  const misses: NearMiss[] = [];
  for (const entry of entries) {
    const missing = entry.selectors.filter((selector) => !have.has(selector));
    if (missing.length > 0) {
      const matched = entry.selectors.length - missing.length;
      misses.push({ entry, missing, matched, instead: insteadOf(missing, have) });
    }
  }
  misses.sort(
    (left, right) =>
      Number(left.matched === 0) - Number(right.matched === 0) ||
      left.missing.length - right.missing.length ||
      right.matched - left.matched ||
      (left.entry.id < right.entry.id ? -1 : 1),
  );
  return misses.slice(0, limit);
}

/** `unix:uid` of `unix:uid:0`: the kind of fact it states. */
function kindOf(selector: Selector): string {
  return selector.split(":", 2).join(":");
}

function insteadOf(missing: readonly Selector[], have: ReadonlySet<Selector>): Record<string, readonly Selector[]> {
  const instead: Record<string, readonly Selector[]> = Object.create(null);
  for (const selector of missing) {
    instead[selector] = [...have].filter((other) => kindOf(other) === kindOf(selector));
  }
  return instead;
}
