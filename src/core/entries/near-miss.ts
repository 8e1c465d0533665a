import type { RegistrationEntry } from "./entry.ts";
import type { Selector } from "./selector.ts";
import { selectorParts, subjectOf } from "./selector-kinds.ts";

/** An entry that does not match, and what it lacks. */
export interface NearMiss {
  readonly entry: RegistrationEntry;
  /** Selectors that the entry demands and the workload does not have; at least one. */
  readonly missing: readonly Selector[];
  /** How many of its selectors the workload does have. */
  readonly matched: number;
  /** What the workload has in place of each missing one: its selectors of the same kind (`unix:uid`), and key where it has one. */
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
  const misses: Omit<NearMiss, "instead">[] = [];
  for (const entry of entries) {
    const missing = entry.selectors.filter((selector) => !have.has(selector));
    if (missing.length > 0) {
      misses.push({ entry, missing, matched: entry.selectors.length - missing.length });
    }
  }
  misses.sort(
    (left, right) =>
      Number(left.matched === 0) - Number(right.matched === 0) ||
      left.missing.length - right.missing.length ||
      right.matched - left.matched ||
      (left.entry.id < right.entry.id ? -1 : 1),
  );
  const bySubject = Map.groupBy(have, (selector) => subjectOf(selectorParts(selector)));
  return misses.slice(0, limit).map((miss) => ({ ...miss, instead: insteadOf(miss.missing, bySubject) }));
}

function insteadOf(
  missing: readonly Selector[],
  bySubject: ReadonlyMap<string, readonly Selector[]>,
): Record<string, readonly Selector[]> {
  const instead: Record<string, readonly Selector[]> = Object.create(null);
  for (const selector of missing) {
    instead[selector] = bySubject.get(subjectOf(selectorParts(selector))) ?? [];
  }
  return instead;
}
