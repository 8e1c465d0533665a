/** Hosts and ports that requests name differently than the policy does. */
import type { Path } from "../../base/yaml.ts";
import type { AuthorizationPolicy, Operation } from "../resources.ts";
import { type Finding, type LintContext, selectedBy } from "./finding.ts";

export function lintPorts(context: LintContext): Finding[] {
  return context.policies.flatMap((policy) =>
    policy.rules.flatMap(({ to }, rule) =>
      to.flatMap((operation, index) => {
        const path: Path = ["spec", "rules", rule, "to", index, "operation"];
        return [...hostsWithoutPort(policy, operation, path), ...portsOfNobody(policy, operation, path, context)];
      }),
    ),
  );
}

/** `Host` carries the port wherever it is not the scheme's own, and is compared with it. */
function hostsWithoutPort(policy: AuthorizationPolicy, operation: Operation, path: Path): Finding[] {
  const field = policy.action === "ALLOW" && operation.notHosts !== undefined ? "notHosts" : "hosts";
  const values = operation[field] ?? [];
  const isEvaded = policy.action !== "ALLOW" || field === "notHosts";
  const exact = values.filter((value) => !value.includes("*") && !/:\d+$/.test(value));
  return exact.flatMap((value): Finding[] =>
    values.some((other) => other.startsWith(`${value}:`) || other === `${value}*`)
      ? []
      : [
          {
            code: "host-without-port",
            severity: isEvaded ? "warning" : "info",
            resource: policy,
            path: [...path, field, values.indexOf(value)],
            message: `\`${value}\` does not match a request whose Host names the port, as \`${value}:8080\`${isEvaded ? ": it evades the rule" : ""}`,
            hint: `write \`${value}:*\` beside it`,
          },
        ],
  );
}

function portsOfNobody(policy: AuthorizationPolicy, operation: Operation, path: Path, context: LintContext): Finding[] {
  const selected = selectedBy(policy, context) ?? [];
  const known = selected.flatMap(({ port }) => port ?? []);
  if (selected.length === 0 || known.length < selected.length) {
    return [];
  }
  return (operation.ports ?? []).flatMap((value, index): Finding[] =>
    known.includes(Number(value))
      ? []
      : [
          {
            code: "port-of-nobody",
            severity: "warning",
            resource: policy,
            path: [...path, "ports", index],
            message: `no workload that the policy selects has the port ${value}`,
            hint: `their ports in the mesh are ${[...new Set(known)].sort((a, b) => a - b).join(", ")}`,
          },
        ],
  );
}
