/** What admission refuses in the values of sources and operations. SOURCE: istio pkg/config/security/security.go. */
import { parseCidr } from "../base/cidr.ts";
import type { Path } from "../base/yaml.ts";
import type { Report } from "./admission.ts";
import { pathFault } from "./path-template.ts";
import type { Action, Operation, Source } from "./resources.ts";

/** Why a value is refused, or null. */
export type ValueCheck = (value: string) => string | null;

const MAX_SERVICE_ACCOUNTS = 16;
const MAX_SERVICE_ACCOUNT_LENGTH = 320;

export const addressFault: ValueCheck = (value) =>
  parseCidr(value) === null ? `\`${value}\` is neither an IP address nor a CIDR block` : null;

export const portFault: ValueCheck = (value) =>
  /^\d{1,20}$/.test(value) && Number(value) <= 65_535 ? null : `\`${value}\` is not a port number`;

export const wildcardFault: ValueCheck = (value) => {
  const stars = value.split("*").length - 1;
  if (stars > 1) {
    return `\`${value}\` has more than one wildcard`;
  }
  return stars === 0 || value.startsWith("*") || value.endsWith("*")
    ? null
    : `\`${value}\` has a wildcard in the middle; it may stand at the start or the end`;
};

const trustDomainFault: ValueCheck = (value) =>
  value.includes("/") ? `\`${value}\` has a slash; a trust domain has none` : wildcardFault(value);

export const serviceAccountFault: ValueCheck = (value) => {
  if (value.includes("*")) {
    return `\`${value}\` has a wildcard; service accounts are exact`;
  }
  if (value.length > MAX_SERVICE_ACCOUNT_LENGTH) {
    return `a service account has at most ${MAX_SERVICE_ACCOUNT_LENGTH} characters`;
  }
  const parts = value.split("/");
  return parts.length > 2 || parts.includes("")
    ? `\`${value}\` is not of the form \`account\` or \`namespace/account\``
    : null;
};

const FIELD_CHECKS: Readonly<Record<string, ValueCheck>> = {
  ipBlocks: addressFault,
  remoteIpBlocks: addressFault,
  ports: portFault,
  paths: pathFault,
  trustDomains: trustDomainFault,
  serviceAccounts: serviceAccountFault,
};

/** `notIpBlocks` → `ipBlocks`. */
export const positiveName = (field: string): string =>
  field.startsWith("not") ? field.charAt(3).toLowerCase() + field.slice(4) : field;

export function checkValues(values: readonly string[], check: ValueCheck | null, at: Path, report: Report): void {
  for (const [index, value] of values.entries()) {
    const fault = value === "" ? "an empty value is not allowed" : (check?.(value) ?? null);
    if (fault !== null) {
      report.fault([...at, index], fault);
    }
  }
}

function checkFields(fields: Source | Operation, at: Path, report: Report): void {
  for (const [field, values] of Object.entries(fields) as [string, readonly string[]][]) {
    const name = positiveName(field);
    checkValues(values, FIELD_CHECKS[name] ?? null, [...at, field], report);
    if (name === "serviceAccounts" && values.length > MAX_SERVICE_ACCOUNTS) {
      report.fault([...at, field], `at most ${MAX_SERVICE_ACCOUNTS} service accounts`);
    }
  }
}

/** Fields that CUSTOM cannot use: they need what only the main filters know. */
const NOT_FOR_CUSTOM = ["namespaces", "serviceAccounts", "trustDomains", "principals", "requestPrincipals"];

export function checkSource(source: Source, action: Action, at: Path, report: Report): void {
  checkFields(source, at, report);
  const names = Object.keys(source).map(positiveName);
  if (names.includes("serviceAccounts") && (names.includes("principals") || names.includes("namespaces"))) {
    report.fault(at, "`serviceAccounts` cannot be combined with `principals` or `namespaces` in one source");
  }
  for (const field of Object.keys(source)) {
    if (action === "CUSTOM" && NOT_FOR_CUSTOM.includes(positiveName(field))) {
      report.fault([...at, field], `\`${field}\` cannot be used with CUSTOM`);
    }
  }
}

export function checkOperation(operation: Operation, at: Path, report: Report): void {
  checkFields(operation, at, report);
}
