/** Principals that nobody in this mesh has, and service accounts of another namespace than was meant. */
import { suggest } from "../../base/suggest.ts";
import type { AuthorizationPolicy } from "../resources.ts";
import { expandPrincipals } from "../trust-domain.ts";
import type { Finding, LintContext } from "./finding.ts";

/** Istio's name for the local trust domain. */
const LOCAL = "cluster.local";

export function lintIdentities(context: LintContext): Finding[] {
  return context.policies.flatMap((policy) => [
    ...unknownPrincipals(policy, context),
    ...rootAccounts(policy, context),
  ]);
}

function unknownPrincipals(policy: AuthorizationPolicy, context: LintContext): Finding[] {
  const known = new Set((context.workloads ?? []).flatMap(({ principal }) => principal ?? []));
  return policy.rules.flatMap(({ from }, rule) =>
    from.flatMap((source, index) =>
      (["principals", "notPrincipals"] as const).flatMap((field) =>
        (source[field] ?? []).flatMap((principal, position): Finding[] => {
          const path = ["spec", "rules", rule, "from", index, "source", field, position];
          return [
            ...notExpanded(policy, principal, path, context),
            ...(known.size === 0 ? [] : unknown(policy, principal, path, known, context)),
          ];
        }),
      ),
    ),
  );
}

/** A typing error allows nobody, or denies nobody. */
function unknown(
  resource: AuthorizationPolicy,
  principal: string,
  path: Finding["path"],
  known: ReadonlySet<string>,
  context: LintContext,
): Finding[] {
  const own = ownPrincipal(principal, context);
  if (own === null || known.has(own)) {
    return [];
  }
  const near = suggest(own, known);
  return [
    {
      code: "unknown-principal",
      severity: near === null ? "info" : "warning",
      resource,
      path,
      message: `no service of this mesh has the identity \`${principal}\``,
      ...(near === null ? {} : { hint: `did you mean \`${respell(near, principal)}\`?` }),
    },
  ];
}

/** The principal in the mesh's own trust domain; null where it has a wildcard, or is of another domain. */
function ownPrincipal(principal: string, { trustDomain, meshConfig }: LintContext): string | null {
  const slash = principal.indexOf("/");
  const domain = principal.slice(0, slash);
  const local = [LOCAL, trustDomain, ...meshConfig.trustDomainAliases].includes(domain);
  return trustDomain !== null && local && !principal.includes("*") ? trustDomain + principal.slice(slash) : null;
}

const respell = (principal: string, like: string): string =>
  like.slice(0, like.indexOf("/")) + principal.slice(principal.indexOf("/"));

/** `cluster.local` stands for the mesh's own trust domain only in a principal of five segments. */
function notExpanded(
  resource: AuthorizationPolicy,
  principal: string,
  path: Finding["path"],
  { trustDomain, meshConfig }: LintContext,
): Finding[] {
  const domains = trustDomain === null ? [] : [trustDomain, ...meshConfig.trustDomainAliases];
  if (domains.length === 0 || domains.includes(LOCAL) || !principal.startsWith(`${LOCAL}/`)) {
    return [];
  }
  return expandPrincipals([principal], domains).some((each) => each !== principal)
    ? []
    : [
        {
          code: "value-never-matches",
          severity: "warning",
          resource,
          path,
          message: `\`${principal}\` never matches: \`${LOCAL}\` means the mesh's trust domain only in \`${LOCAL}/ns/NAMESPACE/sa/ACCOUNT\``,
          hint: `write \`${trustDomain}${principal.slice(LOCAL.length)}\``,
        },
      ];
}

/** A bare account is one of the policy's own namespace, and the root namespace hardly has any. */
function rootAccounts(policy: AuthorizationPolicy, { meshConfig }: LintContext): Finding[] {
  if (policy.namespace !== meshConfig.rootNamespace) {
    return [];
  }
  return policy.rules.flatMap(({ from }, rule) =>
    from.flatMap((source, index) =>
      (["serviceAccounts", "notServiceAccounts"] as const).flatMap((field) =>
        (source[field] ?? []).flatMap((account, position): Finding[] =>
          account.includes("/")
            ? []
            : [
                {
                  code: "account-of-root-namespace",
                  severity: "warning",
                  resource: policy,
                  path: ["spec", "rules", rule, "from", index, "source", field, position],
                  message: `\`${account}\` means the account \`${policy.namespace}/${account}\`, for the policy is in the root namespace`,
                  hint: "write `NAMESPACE/ACCOUNT`",
                },
              ],
        ),
      ),
    ),
  );
}
