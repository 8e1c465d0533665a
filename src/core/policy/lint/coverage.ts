/** Namespaces in which what no policy speaks of is allowed. */
import { hasLabels } from "../select.ts";
import type { Finding, LintContext } from "./finding.ts";

export function lintCoverage({ policies, meshConfig }: LintContext): Finding[] {
  const isDefaultDeny = (namespace: string): boolean =>
    policies.some(
      (policy) =>
        policy.namespace === namespace &&
        policy.action === "ALLOW" &&
        !policy.dryRun &&
        policy.targetRefs.length === 0 &&
        !hasLabels(policy),
    );
  if (isDefaultDeny(meshConfig.rootNamespace)) {
    return [];
  }
  const namespaces = new Set(policies.map(({ namespace }) => namespace));
  return [...namespaces].flatMap((namespace): Finding[] => {
    const first = policies.find((policy) => policy.namespace === namespace);
    return first === undefined || namespace === meshConfig.rootNamespace || isDefaultDeny(namespace)
      ? []
      : [
          {
            code: "no-default-deny",
            severity: "info",
            resource: first,
            path: ["metadata", "namespace"],
            message: `in namespace \`${namespace}\` a workload that no ALLOW policy selects is open to everyone`,
            hint: `add an AuthorizationPolicy with \`spec: {}\` to \`${namespace}\``,
          },
        ];
  });
}
