/** Values that no connection or request ever has, and rules that can therefore never match. */
import { parseCidr } from "../../base/cidr.ts";
import { matchesPattern, parsePattern } from "../../base/pattern.ts";
import type { Path } from "../../base/yaml.ts";
import { isHidden } from "../headers.ts";
import { normalizePath, type PathNormalization } from "../normalize.ts";
import { isTemplate } from "../path-template.ts";
import type { AuthorizationPolicy } from "../resources.ts";
import { type Field, ruleFields } from "../rules.ts";
import type { Finding, LintContext } from "./finding.ts";

export function lintValues({ policies, meshConfig }: LintContext): Finding[] {
  return policies.flatMap((policy) =>
    policy.rules.flatMap((rule, index) => {
      const { from, to, when } = ruleFields(rule);
      const base: Path = ["spec", "rules", index];
      const groups: [readonly Field[], Path][] = [
        ...from.map((fields, at): [readonly Field[], Path] => [fields, [...base, "from", at, "source"]]),
        ...to.map((fields, at): [readonly Field[], Path] => [fields, [...base, "to", at, "operation"]]),
        ...when.map((field): [readonly Field[], Path] => [
          [field],
          [...base, "when", rule.when.indexOf(field.condition!)],
        ]),
      ];
      return groups.flatMap(([fields, path]) => lintFields(policy, fields, path, meshConfig.pathNormalization));
    }),
  );
}

function lintFields(
  policy: AuthorizationPolicy,
  fields: readonly Field[],
  path: Path,
  normalization: PathNormalization,
): Finding[] {
  const contradiction = contradictionOf(fields);
  const found = (at: Path, code: string, message: string, hint?: string): Finding => ({
    ...{ code, severity: "warning", resource: policy, path: at, message },
    ...(hint === undefined ? {} : { hint }),
  });
  return [
    ...(contradiction === null
      ? []
      : [found(path, "never-matches", `\`${contradiction}\` and its negation leave nothing that can match`)]),
    ...fields.flatMap((field): Finding[] => {
      const attributeFault = deadAttribute(field, policy);
      if (attributeFault !== null) {
        return [found([...path, "key"], attributeFault.code, attributeFault.message)];
      }
      return field.values.flatMap((value, index): Finding[] => {
        const dead = deadValue(field, value, normalization);
        return dead === null
          ? []
          : [
              found(
                [...path, field.field, index],
                "value-never-matches",
                `\`${value}\` never matches: ${dead.why}`,
                dead.hint,
              ),
            ];
      });
    }),
  ];
}

/** A condition on something that is never there. */
function deadAttribute(
  { attribute, condition }: Field,
  policy: AuthorizationPolicy,
): { code: string; message: string } | null {
  if (attribute.kind === "metadata") {
    return {
      code: "attribute-absent",
      message: `\`${condition?.key}\` is Envoy's metadata, of which there is none here: it counts as absent`,
    };
  }
  if (
    (attribute.kind === "header" && attribute.name === null) ||
    (attribute.kind === "claim" && attribute.path === null)
  ) {
    const effect =
      policy.action === "ALLOW"
        ? "the whole rule is not in force"
        : "the condition is left out, and the rule matches more";
    return { code: "key-misread", message: `\`${condition?.key}\` is not of the form name[x]: ${effect}` };
  }
  return attribute.kind === "header" && attribute.name !== null && isHidden(attribute.name)
    ? { code: "attribute-absent", message: `\`${attribute.name}\` is taken out of requests before policies look` }
    : null;
}

interface Dead {
  readonly why: string;
  readonly hint?: string;
}

function deadValue(field: Field, value: string, normalization: PathNormalization): Dead | null {
  switch (field.attribute.kind) {
    case "paths":
      return deadPath(value, normalization);
    case "source.principal":
      return deadPrincipal(value);
    case "hosts":
      return /[/\s]/.test(value) ? { why: "a Host is a name and perhaps a port, without scheme and path" } : null;
    case "connection.sni":
      return /[A-Z]/.test(value)
        ? { why: "server names are compared in lower case", hint: `write \`${value.toLowerCase()}\`` }
        : null;
    case "methods":
      return /^[a-z]+$/.test(value) && value !== "*"
        ? { why: "methods are compared with their case", hint: `write \`${value.toUpperCase()}\`` }
        : null;
    case "request.auth.principal":
      return deadRequestPrincipal(value);
    case "destination.port":
      return Number(value) === 0 ? { why: "no port is 0" } : null;
    case "source.ip":
    case "destination.ip": {
      const block = parseCidr(value);
      const isMapped = block?.family === 6 && block.words[2] === 0xffff && block.prefixLength >= 96;
      return isMapped ? { why: "IPv4 peers count as IPv4", hint: "write the IPv4 address" } : null;
    }
    default:
      return null;
  }
}

function deadPrincipal(value: string): Dead | null {
  if (value.startsWith("spiffe://")) {
    return { why: "a principal is written without `spiffe://`", hint: `write \`${value.slice("spiffe://".length)}\`` };
  }
  return value.includes("/") || value.startsWith("*") || value.endsWith("*")
    ? null
    : { why: "a principal is a trust domain and a path", hint: "write `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`" };
}

function deadPath(value: string, normalization: PathNormalization): Dead | null {
  if (value.includes("?") || value.includes("#")) {
    return { why: "query and fragment are not part of the path" };
  }
  if (!value.startsWith("/") && !value.startsWith("*")) {
    return { why: "every path starts with a slash", hint: `write \`/${value}\`` };
  }
  if (isTemplate(value) || parsePattern(value).kind !== "exact") {
    return null;
  }
  const normal = normalizePath(value, normalization);
  return normal === value
    ? null
    : {
        why: "paths are normalised before they are compared",
        ...(normal === null ? {} : { hint: `write \`${normal}\`` }),
      };
}

function deadRequestPrincipal(value: string): Dead | null {
  if (value === "*/*") {
    return { why: "it wants a subject that is a star", hint: "write `*`" };
  }
  return value.includes("/") || value.startsWith("*") || value.endsWith("*")
    ? null
    : { why: "without a slash it wants an empty subject", hint: `write \`${value}/*\` for any subject of that issuer` };
}

/** The field all of whose values its own negation takes away; null where there is none. */
function contradictionOf(fields: readonly Field[]): string | null {
  for (const positive of fields) {
    const negation = fields.find(
      ({ negated, attribute, condition }) =>
        negated && attribute.kind === positive.attribute.kind && condition === positive.condition,
    );
    if (positive.negated || negation === undefined || !isPatternList(positive)) {
      continue;
    }
    const excluded = negation.values.map(parsePattern);
    const isGone = (value: string): boolean => {
      const pattern = parsePattern(value);
      return pattern.kind === "exact"
        ? excluded.some((other) => matchesPattern(other, pattern.text))
        : excluded.some((other) => other.kind === "presence") || negation.values.includes(value);
    };
    if (positive.values.every(isGone)) {
      return positive.condition?.key ?? positive.field;
    }
  }
  return null;
}

/** Fields whose values are plain patterns; of the others a value may mean more than it says. */
const isPatternList = ({ attribute }: Field): boolean =>
  ["source.principal", "methods", "connection.sni", "request.auth.presenter"].includes(attribute.kind);
