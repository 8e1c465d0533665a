/** What is legal in every policy for itself, and yet not what it seems in this mesh. */
import type { WorkloadDescription } from "../core/api/snapshot.ts";
import type { Issue } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import type { AuthorizationPolicy, Resource, Source } from "../core/policy/resources.ts";
import { selects } from "../core/policy/select.ts";
import { principalOf } from "../core/spiffe/id.ts";
import { type Mesh, policyName } from "./policies.ts";

/** Istio's name for the local trust domain. */
const LOCAL = "cluster.local";

/** Findings on `policies` as they stand in `mesh`. Never errors: a service may be on its way. */
export function meshFindings(policies: readonly Resource[], mesh: Mesh): Issue[] {
  const principals = new Set(mesh.workloads.map(({ spiffeId }) => principalOf(spiffeId)));
  return policies.flatMap((policy) => [
    ...selectsNothing(policy, mesh),
    ...(policy.kind === "AuthorizationPolicy" ? unknownPrincipals(policy, principals, mesh) : []),
  ]);
}

function selectsNothing(policy: Resource, { workloads, meshConfig }: Mesh): Issue[] {
  if (
    policy.targetRefs.length > 0 ||
    workloads.some((workload) => selects(policy, workload, meshConfig.rootNamespace))
  ) {
    return [];
  }
  const hint = nearestWorkload(policy, workloads);
  return [
    {
      code: "selects-nothing",
      severity: "warning",
      message: `${policy.kind} \`${policyName(policy)}\` selects no service of this mesh`,
      ...policy.place,
      ...(hint === null ? {} : { hint }),
    },
  ];
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
function unknownPrincipals(policy: AuthorizationPolicy, known: ReadonlySet<string>, mesh: Mesh): Issue[] {
  const issues: Issue[] = [];
  for (const [rule, { from }] of policy.rules.entries()) {
    for (const [index, source] of from.entries()) {
      for (const field of ["principals", "notPrincipals"] as const) {
        issues.push(...unknownIn(source, field, `spec.rules[${rule}].from[${index}].source.${field}`));
      }
    }
  }
  return issues;

  function unknownIn(source: Source, field: "principals" | "notPrincipals", path: string): Issue[] {
    return (source[field] ?? []).flatMap((principal, position) => {
      const own = ownPrincipal(principal, mesh);
      if (own === null || known.has(own)) {
        return [];
      }
      const near = suggest(own, known);
      return [
        {
          code: "unknown-principal",
          severity: near === null ? ("info" as const) : ("warning" as const),
          message: `no service of this mesh has the identity \`${principal}\``,
          ...policy.place,
          path: `${path}[${position}]`,
          ...(near === null ? {} : { hint: `did you mean \`${respell(near, principal)}\`?` }),
        },
      ];
    });
  }
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
