/** Rules as a whole: those that let everyone in, and those that change on TCP. */
import type { Path } from "../../base/yaml.ts";
import type { AuthorizationPolicy } from "../resources.ts";
import { type Field, ruleFields } from "../rules.ts";
import { isHttpOnly } from "../tests.ts";
import { type Finding, type LintContext, type MeshWorkload, selectedBy, workloadName } from "./finding.ts";

export function lintRuleForms(context: LintContext): Finding[] {
  const { policies, meshConfig } = context;
  const providers = new Set(meshConfig.extensionProviders.map(({ name }) => name));
  return policies.flatMap((policy) => [
    ...(policy.action === "CUSTOM" && !providers.has(policy.provider ?? "") ? [unknownProvider(policy)] : []),
    ...policy.rules.flatMap((_, rule) => lintRule(policy, rule, tcpWorkloads(policy, context))),
  ]);
}

function unknownProvider(policy: AuthorizationPolicy): Finding {
  return {
    code: "unknown-provider",
    severity: "warning",
    resource: policy,
    path: ["spec", "provider", "name"],
    message: `no extension provider \`${policy.provider}\` is configured: what the rules match is denied`,
    hint: "add it to meshConfig.extensionProviders",
  };
}

/** Those that speak TCP; null where that is not known. */
function tcpWorkloads(policy: AuthorizationPolicy, context: LintContext): readonly MeshWorkload[] | null {
  const selected = selectedBy(policy, context);
  return selected?.some(({ protocol }) => protocol === undefined) === true
    ? null
    : (selected?.filter(({ protocol }) => protocol === "tcp") ?? null);
}

function lintRule(policy: AuthorizationPolicy, rule: number, tcp: readonly MeshWorkload[] | null): Finding[] {
  const path: Path = ["spec", "rules", rule];
  const { from, to, when } = ruleFields(policy.rules[rule]!);
  const fields = [...from.flat(), ...to.flat(), ...when];
  if (fields.length === 0) {
    return policy.action === "ALLOW"
      ? [
          {
            code: "allow-all",
            severity: "warning",
            resource: policy,
            path,
            message: "the rule has no condition: it lets everyone in, plaintext callers too",
            hint: "name who may call in `from`",
          },
        ]
      : [];
  }
  const http = fields.filter((field) => isHttpOnly(field.attribute));
  if (http.length === 0 || policy.action === "CUSTOM" || policy.targetRefs.length > 0 || tcp?.length === 0) {
    return [];
  }
  const severity = tcp === null ? "info" : "warning";
  const where = tcp === null ? "on TCP ports" : `at ${tcp.map(workloadName).join(", ")}, which speaks TCP,`;
  const names = [...new Set(http.map(nameOf))].join(", ");
  if (policy.action === "ALLOW") {
    return [
      {
        code: "tcp-rule-dropped",
        severity,
        resource: policy,
        path,
        message: `${where} the rule is not in force, for it asks for HTTP (${names})`,
      },
    ];
  }
  const verb = policy.action === "DENY" ? "denies" : "audits";
  return isEverythingOnTcp({ from, to, when })
    ? [
        {
          code: "tcp-everything",
          severity: "warning",
          resource: policy,
          path,
          message: `${where} the rule ${verb} everything, for all it asks for is HTTP (${names})`,
          hint: "name the HTTP ports in `to.operation.ports`",
        },
      ]
    : [
        {
          code: "tcp-wider",
          severity,
          resource: policy,
          path,
          message: `${where} the rule ${verb} more, for there it loses ${names}`,
        },
      ];
}

const nameOf = ({ field, condition }: Field): string => `\`${condition?.key ?? field}\``;

function isEverythingOnTcp(rule: ReturnType<typeof ruleFields>): boolean {
  const isHttp = (field: Field): boolean => isHttpOnly(field.attribute);
  const isOpen = (alternatives: readonly (readonly Field[])[]): boolean =>
    alternatives.length === 0 || alternatives.some((fields) => fields.every(isHttp));
  return isOpen(rule.from) && isOpen(rule.to) && rule.when.every(isHttp);
}
