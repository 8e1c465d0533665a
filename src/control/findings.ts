/** What is legal in every policy for itself, and yet not what it seems in this mesh. */
import type { WorkloadDescription } from "../core/api/snapshot.ts";
import type { Issue } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import type { Finding } from "../core/policy/lint/finding.ts";
import { findingIssue, findingsOf } from "../core/policy/lint/findings.ts";
import type { AuthorizationPolicy, Resource } from "../core/policy/resources.ts";
import { principalOf } from "../core/spiffe/id.ts";
import type { Mesh, ReadPolicies } from "./policies.ts";

/** Istio's name for the local trust domain. */
const LOCAL = "cluster.local";

/** All findings on policies that are in force together in `mesh`. Never errors: a service may be on its way. */
export function meshFindings({ policies, issues, locate }: ReadPolicies, mesh: Mesh): Issue[] {
  const { meshConfig, workloads } = mesh;
  const principals = new Set(workloads.map(({ spiffeId }) => principalOf(spiffeId)));
  const findings = [
    ...findingsOf(policies, { meshConfig, workloads }).map((finding) => withNearest(finding, workloads)),
    ...policies.flatMap((policy) =>
      policy.kind === "AuthorizationPolicy" ? unknownPrincipals(policy, principals, mesh) : [],
    ),
  ];
  return [...issues, ...findings.map((finding) => findingIssue(finding, locate))];
}

/** Where nothing is selected, says what may have been meant. */
function withNearest(finding: Finding, workloads: readonly WorkloadDescription[]): Finding {
  const hint = finding.code === "selects-nothing" ? nearestWorkload(finding.resource, workloads) : null;
  return hint === null ? finding : { ...finding, hint };
}

/** A label or the namespace that is nearly one of the mesh's. */
function nearestWorkload(policy: Resource, workloads: readonly WorkloadDescription[]): string | null {
  const namespaces = [...new Set(workloads.map(({ namespace }) => namespace))];
  if (!namespaces.includes(policy.namespace)) {
    const near = suggest(policy.namespace, namespaces);
    return near === null
      ? `the namespaces of this mesh are ${namespaces.sort().join(", ")}`
      : `did you mean the namespace \`${near}\`?`;
  }
  const here = workloads.filter(({ namespace }) => namespace === policy.namespace);
  for (const [key, value] of Object.entries(policy.selector ?? {})) {
    const values = here.flatMap(({ labels }) => (Object.hasOwn(labels, key) ? [labels[key] as string] : []));
    const near = values.includes(value) ? null : suggest(value, values);
    if (near !== null) {
      return `did you mean \`${key}: ${near}\`?`;
    }
  }
  return null;
}

/** Principals written out in full that no service has: a typing error there allows nobody, or denies nobody. */
function unknownPrincipals(policy: AuthorizationPolicy, known: ReadonlySet<string>, mesh: Mesh): Finding[] {
  return policy.rules.flatMap(({ from }, rule) =>
    from.flatMap((source, index) =>
      (["principals", "notPrincipals"] as const).flatMap((field) =>
        (source[field] ?? []).flatMap((principal, position): Finding[] => {
          const own = ownPrincipal(principal, mesh);
          if (own === null || known.has(own)) {
            return [];
          }
          const near = suggest(own, known);
          return [
            {
              code: "unknown-principal",
              severity: near === null ? "info" : "warning",
              resource: policy,
              path: ["spec", "rules", rule, "from", index, "source", field, position],
              message: `no service of this mesh has the identity \`${principal}\``,
              ...(near === null ? {} : { hint: `did you mean \`${respell(near, principal)}\`?` }),
            },
          ];
        }),
      ),
    ),
  );
}

/** The principal in the mesh's own trust domain; null where it has a wildcard, or is of another domain. */
function ownPrincipal(principal: string, { trustDomain, meshConfig }: Mesh): string | null {
  const slash = principal.indexOf("/");
  const domain = principal.slice(0, slash);
  const local = [LOCAL, trustDomain, ...meshConfig.trustDomainAliases].includes(domain);
  return local && !principal.includes("*") ? trustDomain + principal.slice(slash) : null;
}

const respell = (principal: string, like: string): string =>
  like.slice(0, like.indexOf("/")) + principal.slice(principal.indexOf("/"));
