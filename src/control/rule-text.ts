/** Rules of AuthorizationPolicies in one line each, in Istio's words, for whoever asks why. */
import { snapshotName } from "../core/api/snapshot.ts";
import type { AuthorizationPolicy, Rule } from "../core/policy/resources.ts";
import { selectResources } from "../core/policy/select.ts";
import { policyName } from "./policies.ts";
import { describeWorkload, type World } from "./world.ts";

/** `from principals a, b; to methods POST and paths /x; when request.headers[x] is 1`; `anything` for an empty rule. */
export function ruleText({ from, to, when }: Rule): string {
  const parts = [
    from.length === 0 ? "" : `from ${from.map(fieldsText).join(" or ")}`,
    to.length === 0 ? "" : `to ${to.map(fieldsText).join(" or ")}`,
    ...when.map(({ key, values, notValues }) =>
      [
        values.length === 0 ? "" : `when ${key} is ${values.join(", ")}`,
        notValues.length === 0 ? "" : `when ${key} is not ${notValues.join(", ")}`,
      ]
        .filter((text) => text !== "")
        .join("; "),
    ),
  ].filter((text) => text !== "");
  return parts.length === 0 ? "anything" : parts.join("; ");
}

function fieldsText(fields: Readonly<Record<string, readonly string[] | undefined>>): string {
  return Object.entries(fields)
    .flatMap(([field, values]) => (values === undefined ? [] : [`${field} ${values.join(", ")}`]))
    .join(" and ");
}

const RULES_SHOWN = 20;

/** The rules that allow something at `node` now, each with its policy; empty where no ALLOW policy selects it. */
export function allowedAt(world: World, node: string): readonly string[] {
  return policiesAt(world, node)
    .filter(({ action, dryRun }) => action === "ALLOW" && !dryRun)
    .flatMap((policy) =>
      policy.rules.length === 0
        ? [`nothing (${policyName(policy)} has no rules)`]
        : policy.rules.map((rule, index) => `${ruleText(rule)} (${policyName(policy)}, rule ${index})`),
    )
    .slice(0, RULES_SHOWN);
}

/** What rule `index` of `policy` (`namespace/name`) says now; null where it is not there any more. */
export function decidingRule(world: World, node: string, policy: string | null, index: number | null): string | null {
  const found = policiesAt(world, node).find((each) => policyName(each) === policy);
  const rule = index === null ? undefined : found?.rules[index];
  return rule === undefined ? null : ruleText(rule);
}

function policiesAt(world: World, node: string): readonly AuthorizationPolicy[] {
  const service = world.services.find((each) => snapshotName(each) === node);
  if (service === undefined) {
    return [];
  }
  const workload = describeWorkload(service, world.trustDomain);
  return selectResources(world.policies, workload, world.meshConfig).filter(
    (resource) => resource.kind === "AuthorizationPolicy",
  );
}
