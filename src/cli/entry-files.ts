/** Entry sets from files, checked as the server would, with the place of every fault. */
import { configError, type Issue } from "../core/base/errors.ts";
import { parseYaml, type YamlDocument } from "../core/base/yaml.ts";
import { type EntryFault, entryKey, type RegistrationEntry, validateEntry } from "../core/entries/entry.ts";
import { type DraftAt, type EntrySet, parseEntrySet } from "../core/entries/entry-set.ts";
import type { SourceFile } from "../core/policy/parse.ts";
import type { TrustDomain } from "../core/spiffe/id.ts";

export interface WantedSet {
  readonly name: string;
  /** An entry without an id of its own has an empty one. */
  readonly entries: readonly RegistrationEntry[];
}

/** The sets of all files. Errors: `config-invalid` with every issue: one bad entry, and nothing is planned. */
export function readEntrySets(files: readonly SourceFile[], trustDomain: TrustDomain): readonly WantedSet[] {
  const issues: Issue[] = [];
  const sets: WantedSet[] = [];
  const seen: Seen = { names: new Map(), keys: new Map() };
  for (const { file, text } of files) {
    const { documents, issues: syntax } = parseYaml(text, file);
    issues.push(...syntax);
    for (const document of documents) {
      const { set, issues: faults } = parseEntrySet(document);
      issues.push(...faults);
      if (set !== null) {
        const { entries, issues: more } = checkSet(set, document, trustDomain, seen);
        issues.push(...more);
        sets.push({ name: set.name, entries });
      }
    }
  }
  if (sets.length === 0 && issues.length === 0) {
    issues.push({ code: "config-invalid", severity: "error", message: "there is no `kind: EntrySet` in these files" });
  }
  if (issues.length > 0) {
    throw configError(issues);
  }
  return sets;
}

/** Sets and entries that were met before, with where. */
interface Seen {
  readonly names: Map<string, string>;
  readonly keys: Map<string, string>;
}

function checkSet(
  { name, entries: drafts }: EntrySet,
  document: YamlDocument,
  trustDomain: TrustDomain,
  seen: Seen,
): { readonly entries: readonly RegistrationEntry[]; readonly issues: readonly Issue[] } {
  const issues: Issue[] = [];
  const entries: RegistrationEntry[] = [];
  const report = (path: DraftAt["path"], message: string, hint?: string): void => {
    const place = document.place(path);
    issues.push({
      code: "config-invalid",
      severity: "error",
      message,
      ...place,
      ...(hint === undefined ? {} : { hint }),
    });
  };
  const where = (path: DraftAt["path"]): string => {
    const { file, line } = document.place(path);
    return `${file}:${line}`;
  };
  const twice = seen.names.get(name);
  if (twice !== undefined) {
    report(["metadata", "name"], `the set \`${name}\` stands at ${twice} too`, "a set is one document: join the two");
  }
  seen.names.set(name, where([]));
  for (const { draft, path } of drafts) {
    const checked = validateEntry(draft, { trustDomain, now: 0, newId: "" });
    if (!checked.ok) {
      for (const { field, message } of checked.faults) {
        report([...path, fieldOf(field)], `${field} ${message}`);
      }
      continue;
    }
    const { entry } = checked;
    const before = seen.keys.get(entryKey(entry));
    if (before !== undefined) {
      report(path, `\`${entry.spiffeId}\` with this parent and these selectors stands at ${before} too`);
    }
    seen.keys.set(entryKey(entry), where(path));
    entries.push(entry);
  }
  return { entries, issues };
}

/** As the file spells it. */
function fieldOf(field: EntryFault["field"]): string {
  return field.replace(/^(x509SvidTtl|jwtSvidTtl)Ms$/, "$1").replace(/^expiresAtMs$/, "expiresAt");
}
