/** What admission refuses in `when`. SOURCE: istio pkg/config/security/security.go ValidateAttribute. */
import { suggest } from "../base/suggest.ts";
import type { Path } from "../base/yaml.ts";
import type { Report } from "./admission.ts";
import {
  addressFault,
  checkValues,
  portFault,
  serviceAccountFault,
  type ValueCheck,
  wildcardFault,
} from "./check-fields.ts";
import { conditionAttribute } from "./condition-key.ts";
import type { Action, Condition } from "./resources.ts";

const CHECKS: Readonly<Record<string, ValueCheck>> = {
  "source.ip": addressFault,
  "remote.ip": addressFault,
  "destination.ip": addressFault,
  "destination.port": portFault,
  "source.serviceAccount": serviceAccountFault,
  "source.trustDomain": wildcardFault,
};

const REMOVED: Readonly<Record<string, string>> = {
  "destination.namespace": "a policy's own namespace takes its place",
  "destination.labels": "the policy's selector takes its place",
  "destination.name": "it was of v1alpha1",
  "destination.user": "it was of v1alpha1",
};

const KNOWN = [
  ...["source.ip", "remote.ip", "source.namespace", "source.serviceAccount", "source.principal", "source.trustDomain"],
  ...["request.auth.principal", "request.auth.audiences", "request.auth.presenter"],
  ...["destination.ip", "destination.port", "connection.sni"],
  ...["request.headers[NAME]", "request.auth.claims[NAME]"],
];

export function checkConditions(when: readonly Condition[], action: Action, at: Path, report: Report): void {
  for (const [index, condition] of when.entries()) {
    checkCondition(condition, action, [...at, index], report);
  }
}

function checkCondition({ key, values, notValues }: Condition, action: Action, at: Path, report: Report): void {
  if (key === "") {
    report.fault(at, "`key` is missing", `known are: ${KNOWN.join(", ")}`);
    return;
  }
  if (values.length === 0 && notValues.length === 0) {
    report.fault(at, `\`${key}\` needs \`values\` or \`notValues\``);
    return;
  }
  const fault = keyFault(key);
  if (fault !== null) {
    report.fault([...at, "key"], fault.message, fault.hint);
    return;
  }
  if (action === "CUSTOM" && isForbiddenInCustom(key)) {
    report.fault([...at, "key"], `\`${key}\` cannot be used with CUSTOM`);
  }
  const check = CHECKS[key] ?? null;
  checkValues(values, check, [...at, "values"], report);
  checkValues(notValues, check, [...at, "notValues"], report);
  if (key === "source.serviceAccount" && Math.max(values.length, notValues.length) > 16) {
    report.fault(at, "at most 16 service accounts");
  }
}

const isForbiddenInCustom = (key: string): boolean =>
  ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"].includes(key) ||
  key.startsWith("request.auth.");

function keyFault(key: string): { message: string; hint: string | undefined } | null {
  const attribute = conditionAttribute(key);
  if (attribute === null) {
    const removed = Object.keys(REMOVED).find((old) => key === old || (old.endsWith("labels") && key.startsWith(old)));
    if (removed !== undefined) {
      return { message: `\`${key}\` is no longer supported`, hint: REMOVED[removed] };
    }
    const near = suggest(key, KNOWN);
    return {
      message: `unknown key \`${key}\``,
      hint: near === null ? `known are: ${KNOWN.join(", ")}` : `did you mean \`${near}\`?`,
    };
  }
  if (attribute.kind === "header" || attribute.kind === "claim" || attribute.kind === "metadata") {
    const open = key.indexOf("[");
    if (!key.endsWith("]") || open <= 0 || open >= key.length - 2) {
      return { message: `\`${key}\` has no name in brackets`, hint: "write it as `request.headers[x-user]`" };
    }
  }
  // Istio's admission lets these pass, and Envoy then refuses the whole configuration.
  if (attribute.kind === "claim" && attribute.path?.includes("")) {
    return { message: `\`${key}\` has an empty claim name`, hint: "name a claim in every pair of brackets" };
  }
  if (attribute.kind === "header" && /[\0\r\n]/.test(attribute.name ?? "")) {
    return { message: "a header's name cannot have a line break or a zero byte", hint: undefined };
  }
  return null;
}
