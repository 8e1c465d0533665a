/** What is legal in every policy for itself, and yet not what it seems in this mesh. */
import type { Issue } from "../core/base/errors.ts";
import { findingIssue, findingsOf } from "../core/policy/lint/findings.ts";
import { principalOf } from "../core/spiffe/id.ts";
import type { Mesh, ReadPolicies } from "./policies.ts";

/** All findings on policies that are in force together in `mesh`. Never errors: a service may be on its way. */
export function meshFindings({ policies, issues, locate }: ReadPolicies, mesh: Mesh): Issue[] {
  const { meshConfig, trustDomain } = mesh;
  const workloads = mesh.workloads.map((workload) => ({ ...workload, principal: principalOf(workload.spiffeId) }));
  const findings = findingsOf(policies, { meshConfig, trustDomain, workloads });
  return [...issues, ...findings.map((finding) => findingIssue(finding, locate))];
}
