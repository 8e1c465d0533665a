/** Resources that reach no workload, or not the ones their author thinks of. */
import { suggest } from "../../base/suggest.ts";
import type { AuthorizationPolicy, PeerAuthentication, Resource } from "../resources.ts";
import { compareAge } from "../resources.ts";
import { ruleFields } from "../rules.ts";
import { hasLabels, selects } from "../select.ts";
import type { Finding, LintContext, MeshWorkload } from "./finding.ts";

export function lintScope(context: LintContext): Finding[] {
  return [
    ...context.resources.flatMap((resource) => lintSelection(resource, context)),
    ...lintPeerAuthentications(context),
    ...lintMissingTokens(context),
  ];
}

function lintSelection(resource: Resource, { workloads, meshConfig }: LintContext): Finding[] {
  const { rootNamespace } = meshConfig;
  if (resource.targetRefs.length > 0) {
    return [
      {
        code: "not-for-sidecars",
        severity: "info",
        resource,
        path: ["spec"],
        message: "what has targets is for gateways and waypoints: sidecars ignore it",
      },
    ];
  }
  if (resource.kind === "PeerAuthentication" && resource.namespace === rootNamespace && hasLabels(resource)) {
    return [
      {
        code: "ignored",
        severity: "warning",
        resource,
        path: ["spec", "selector"],
        message: "a PeerAuthentication with a selector is ignored in the root namespace",
        hint: "move it to the workload's namespace",
      },
    ];
  }
  const selected = workloads?.some((workload) => selects(resource, workload, rootNamespace)) ?? true;
  return selected
    ? []
    : [
        {
          code: "selects-nothing",
          severity: "warning",
          resource,
          path: hasLabels(resource) ? ["spec", "selector"] : ["metadata", "namespace"],
          message: "no workload of the mesh is selected",
          hint: nearestWorkload(resource, workloads ?? []) ?? "compare the labels and the namespace with the services'",
        },
      ];
}

/** A label or the namespace that is nearly one of the mesh's. */
function nearestWorkload(policy: Resource, workloads: readonly MeshWorkload[]): string | null {
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

/** Of several at one scope only the oldest counts. */
function lintPeerAuthentications({ resources }: LintContext): Finding[] {
  const scopes = new Map<string, PeerAuthentication>();
  const sorted = resources.filter((resource) => resource.kind === "PeerAuthentication").sort(compareAge);
  return sorted.flatMap((resource): Finding[] => {
    const scope = JSON.stringify([resource.namespace, Object.entries(resource.selector ?? {}).sort()]);
    const older = scopes.get(scope);
    if (older === undefined) {
      scopes.set(scope, resource);
      return [];
    }
    return [
      {
        code: "ignored",
        severity: "warning",
        resource,
        path: ["spec"],
        message: `\`${older.namespace}/${older.name}\` is of the same scope and older: this one is ignored`,
        hint: "keep one of the two",
      },
    ];
  });
}

/** Policies on tokens where no token is ever validated. */
function lintMissingTokens({ resources, policies, meshConfig }: LintContext): Finding[] {
  const validating = resources.filter(({ kind }) => kind === "RequestAuthentication");
  const isCovered = (policy: AuthorizationPolicy): boolean =>
    validating.some(
      ({ namespace }) =>
        namespace === meshConfig.rootNamespace ||
        namespace === policy.namespace ||
        policy.namespace === meshConfig.rootNamespace,
    );
  return policies.flatMap((policy) =>
    isCovered(policy)
      ? []
      : policy.rules.flatMap((rule, index): Finding[] => {
          const { from, to, when } = ruleFields(rule);
          const asks = [...from.flat(), ...to.flat(), ...when].some(
            ({ attribute }) => attribute.kind === "claim" || attribute.kind.startsWith("request.auth."),
          );
          return asks
            ? [
                {
                  code: "no-token-validated",
                  severity: "warning",
                  resource: policy,
                  path: ["spec", "rules", index],
                  message: "the rule asks for a token, and no RequestAuthentication validates any here",
                  hint: "add one to this namespace or the root namespace",
                },
              ]
            : [];
        }),
  );
}
