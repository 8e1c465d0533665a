/** The warning of `entry create`: a selector that no workload can have. */
import { mistakesOf } from "../core/entries/hint.ts";
import type { Selector } from "../core/entries/selector.ts";
import type { Entry as Message } from "../gen/spire/api/types/entry_pb.js";
import { formatIssueForPeople, note } from "./ui.ts";

/** Says on standard error which selectors of entries for workloads are mistakes; the entries are made all the same. */
export function warnOfSelectors(created: readonly { readonly entry?: Message | undefined }[]): void {
  for (const { entry } of created) {
    const forNodes = entry?.parentId?.path === "/spire/server";
    const selectors = forNodes ? [] : (entry?.selectors ?? []).map(({ type, value }) => `${type}:${value}` as Selector);
    for (const { selector, hint } of mistakesOf(selectors)) {
      const message = `no workload has the selector \`${selector}\``;
      note(formatIssueForPeople({ code: "entry-selector", severity: "warning", message, hint }));
    }
  }
}
