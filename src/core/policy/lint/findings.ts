/**
 * Findings: what is legal, and decided as Istio decides it, but hardly what was meant. Codes are stable; docs list them.
 */
import type { Issue, Place } from "../../base/errors.ts";
import { formatPath, type Path } from "../../base/yaml.ts";
import type { MeshConfig } from "../mesh-config.ts";
import type { Resource } from "../resources.ts";
import { lintCoverage } from "./coverage.ts";
import type { Finding, LintContext, MeshWorkload } from "./finding.ts";
import { lintIdentities } from "./identities.ts";
import { lintOverlap } from "./overlap.ts";
import { lintPlaintext } from "./plaintext.ts";
import { lintPorts } from "./ports.ts";
import { lintRuleForms } from "./rule-forms.ts";
import { lintScope } from "./scope.ts";
import { lintValues } from "./values.ts";

export interface LintOptions {
  readonly meshConfig: MeshConfig;
  readonly trustDomain?: string;
  readonly workloads?: readonly MeshWorkload[];
}

const LINTS = [
  lintScope,
  lintRuleForms,
  lintValues,
  lintIdentities,
  lintPorts,
  lintPlaintext,
  lintOverlap,
  lintCoverage,
];

/** All findings about a set of resources that are in force together, in the order of the resources. */
export function findingsOf(resources: readonly Resource[], options: LintOptions): readonly Finding[] {
  const context: LintContext = {
    resources,
    policies: resources.filter((resource) => resource.kind === "AuthorizationPolicy"),
    meshConfig: options.meshConfig,
    trustDomain: options.trustDomain ?? null,
    workloads: options.workloads ?? null,
  };
  const findings = LINTS.flatMap((lint) => lint(context));
  return findings.sort((a, b) => a.resource.order - b.resource.order);
}

/** A finding as `policy check` and `status` show it. `locate` gives exact lines where the documents are at hand. */
export function findingIssue(finding: Finding, locate?: (resource: Resource, path: Path) => Place): Issue {
  const { code, severity, message, resource, path, hint } = finding;
  const place = locate?.(resource, path) ?? { ...resource.place, path: formatPath(path) };
  return { code, severity, message, ...place, ...(hint === undefined ? {} : { hint }) };
}
