/** What has to change for the registry to hold what a set says. Nothing that belongs to another set is touched. */
import { type EntryDraft, entryKey, type RegistrationEntry } from "./entry.ts";
import { SET_LABEL } from "./entry-set.ts";

export interface PlannedUpdate {
  readonly before: RegistrationEntry;
  readonly after: RegistrationEntry;
  /** Names of the fields that differ. */
  readonly fields: readonly (keyof RegistrationEntry)[];
}

export interface EntryPlan {
  readonly set: string;
  readonly create: readonly RegistrationEntry[];
  readonly update: readonly PlannedUpdate[];
  /** Of this set, and no longer in it. */
  readonly remove: readonly RegistrationEntry[];
  readonly unchanged: number;
  /** Wanted by this set, and there already as another's. */
  readonly conflicts: readonly { readonly wanted: RegistrationEntry; readonly found: RegistrationEntry }[];
}

/** What an operator can say of an entry; the rest is the registry's own. */
const COMPARED = [
  "spiffeId",
  "parentId",
  "selectors",
  "x509SvidTtlMs",
  "jwtSvidTtlMs",
  "federatesWith",
  "admin",
  "downstream",
  "expiresAtMs",
  "dnsNames",
  "hint",
  "storeSvid",
  "disableX509SvidPrefetch",
  "labels",
] as const satisfies readonly (keyof RegistrationEntry & keyof EntryDraft)[];

/** `wanted` are valid and not similar to each other; one without an id of its own has an empty one. */
export function planEntries(
  set: string,
  wanted: readonly RegistrationEntry[],
  current: readonly RegistrationEntry[],
): EntryPlan {
  const pairs = pairUp(set, wanted, current);
  const create: RegistrationEntry[] = [];
  const update: PlannedUpdate[] = [];
  const conflicts: { wanted: RegistrationEntry; found: RegistrationEntry }[] = [];
  let unchanged = 0;
  for (const [want, found] of pairs) {
    const owner = found?.labels[SET_LABEL];
    if (found === null) {
      create.push(want);
    } else if (owner !== undefined && owner !== set) {
      conflicts.push({ wanted: want, found });
    } else {
      const fields = COMPARED.filter((field) => JSON.stringify(want[field]) !== JSON.stringify(found[field]));
      if (fields.length === 0) {
        unchanged += 1;
      } else {
        update.push({ before: found, after: { ...want, id: found.id }, fields });
      }
    }
  }
  const kept = new Set([...pairs.values()].map((found) => found?.id));
  const remove = current.filter((entry) => entry.labels[SET_LABEL] === set && !kept.has(entry.id));
  return { set, create, update, remove, unchanged, conflicts };
}

/**
 * Which of the current entries each wanted one is: the one with its id; else the similar one; else one of this set with the
 * same identity and parent, whose selectors have changed. So a changed selector is an update, and the entry keeps its id.
 */
function pairUp(
  set: string,
  wanted: readonly RegistrationEntry[],
  current: readonly RegistrationEntry[],
): Map<RegistrationEntry, RegistrationEntry | null> {
  const free = new Map(current.map((entry) => [entry.id, entry]));
  const byKey = new Map(current.map((entry) => [entryKey(entry), entry]));
  const pairs = new Map<RegistrationEntry, RegistrationEntry | null>(wanted.map((want) => [want, null]));
  const pair = (want: RegistrationEntry, found: RegistrationEntry | undefined): void => {
    if (found !== undefined && pairs.get(want) === null && free.delete(found.id)) {
      pairs.set(want, found);
    }
  };
  for (const want of wanted) {
    pair(want, want.id === "" ? undefined : free.get(want.id));
  }
  for (const want of wanted) {
    pair(want, byKey.get(entryKey(want)));
  }
  const place = ({ spiffeId, parentId }: RegistrationEntry): string => `${spiffeId} ${parentId}`;
  const left = Map.groupBy(
    [...free.values()].filter((entry) => entry.labels[SET_LABEL] === set),
    place,
  );
  for (const want of wanted) {
    if (want.id === "" && pairs.get(want) === null) {
      pair(want, left.get(place(want))?.shift());
    }
  }
  return pairs;
}
