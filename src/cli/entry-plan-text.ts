/** A plan as people and scripts read it. */
import type { RegistrationEntry } from "../core/entries/entry.ts";
import type { EntryPlan, PlannedUpdate } from "../core/entries/plan.ts";
import { printable } from "./printable.ts";

export function planDocument({ set, create, update, remove, unchanged, conflicts }: EntryPlan) {
  const short = ({ id, spiffeId, parentId, selectors }: RegistrationEntry) => ({
    ...(id === "" ? {} : { id }),
    spiffeId,
    parentId,
    selectors,
  });
  return {
    set,
    create: create.map(short),
    update: update.map(({ after, fields }) => ({ ...short(after), fields })),
    delete: remove.map(short),
    unchanged,
    conflicts: conflicts.map(({ wanted, found }) => ({ ...short(wanted), foundId: found.id })),
  };
}

/** `deletions`: whether what is no longer in the set is shown as deleted. */
export function planText(plan: EntryPlan, deletions: boolean): string {
  const { set, create, update, remove, unchanged, conflicts } = plan;
  const removed = deletions ? remove : [];
  const line = (sign: string, { spiffeId, selectors }: RegistrationEntry): string =>
    printable(`  ${sign} ${spiffeId}  ${selectors.join(" ")}`);
  const lines = [
    ...create.map((entry) => line("+", entry)),
    ...update.flatMap((change) => [line("~", change.after), ...changedFields(change)]),
    ...removed.map((entry) => line("-", entry)),
    ...conflicts.map(({ wanted, found }) => `${line("!", wanted)}  (entry ${found.id} belongs to another set)`),
  ];
  const counts = `${create.length} created, ${update.length} changed, ${removed.length} deleted, ${unchanged} as they are`;
  return [`${set}: ${counts}`, ...lines].join("\n");
}

function changedFields({ before, after, fields }: PlannedUpdate): string[] {
  return fields.map((field) =>
    printable(`      ${field}: ${JSON.stringify(before[field])} -> ${JSON.stringify(after[field])}`),
  );
}
