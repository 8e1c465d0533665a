/** Istio's resources as the control plane holds them: read from files, chosen per workload, written for sidecars. */

import type { WorkloadDescription } from "../core/api/snapshot.ts";
import type { Issue, Place } from "../core/base/errors.ts";
import { parseYaml } from "../core/base/yaml.ts";

/** One resource in force. */
export interface Policy {
  readonly kind: string;
  /** `namespace/name`. */
  readonly name: string;
  readonly place: Place;
  readonly json: string;
  readonly selector: Readonly<Record<string, string>>;
}

export interface ReadPolicies {
  readonly policies: readonly Policy[];
  readonly issues: readonly Issue[];
}

export function readPolicies(files: ReadonlyMap<string, string>): ReadPolicies {
  const policies: Policy[] = [];
  const issues: Issue[] = [];
  for (const [file, text] of files) {
    const read = parseYaml(text, file);
    issues.push(...read.issues);
    for (const document of read.documents) {
      const value = document.value as {
        kind: string;
        metadata: { name: string; namespace: string };
        spec?: { selector?: { matchLabels?: Record<string, string> } };
      };
      policies.push({
        kind: value.kind,
        name: `${value.metadata?.namespace ?? "default"}/${value.metadata?.name}`,
        place: document.place([]),
        json: JSON.stringify(value),
        selector: value.spec?.selector?.matchLabels ?? {},
      });
    }
  }
  return { policies, issues };
}

/** The policies that decide on requests to `workload`, in deciding order. */
export function policiesOf(policies: readonly Policy[], workload: WorkloadDescription): readonly Policy[] {
  return policies.filter(
    ({ name, selector }) =>
      ["istio-system", workload.namespace].includes(name.split("/")[0] ?? "") &&
      Object.entries(selector).every(([key, value]) => workload.labels[key] === value),
  );
}

/** What is wrong with them for this one workload: a policy may be well formed and still not compile. */
export function compileIssues(_policies: readonly Policy[], _workload: WorkloadDescription): readonly Issue[] {
  return [];
}
