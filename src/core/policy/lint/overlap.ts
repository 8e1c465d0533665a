/** Rules that another rule makes idle: duplicates, rules that a wider one covers, and ALLOW rules a DENY rule shuts. */
import { matchesPattern, parsePattern } from "../../base/pattern.ts";
import type { AuthorizationPolicy } from "../resources.ts";
import { type Field, ruleFields } from "../rules.ts";
import type { Finding, LintContext } from "./finding.ts";

interface RuleAt {
  readonly policy: AuthorizationPolicy;
  readonly rule: number;
  readonly fields: ReturnType<typeof ruleFields>;
  /** What it asks for, in a form in which equal rules are equal. */
  readonly form: string;
}

/** More rules than this in one namespace are compared for being equal only: the rest is quadratic. */
const MAX_COMPARED = 1_500;

export function lintOverlap({ policies, meshConfig }: LintContext): Finding[] {
  const groups = new Map<string, RuleAt[]>();
  for (const policy of policies) {
    if (policy.dryRun || policy.targetRefs.length > 0 || policy.action === "CUSTOM") {
      continue;
    }
    const group = groups.get(policy.namespace) ?? [];
    groups.set(policy.namespace, group);
    policy.rules.forEach((given, rule) => {
      group.push({ policy, rule, fields: ruleFields(given), form: JSON.stringify(given) });
    });
  }
  const root = groups.get(meshConfig.rootNamespace) ?? [];
  return [...groups].flatMap(([namespace, rules]) =>
    lintGroup(rules, namespace === meshConfig.rootNamespace ? rules : [...root, ...rules]),
  );
}

function lintGroup(rules: readonly RuleAt[], others: readonly RuleAt[]): Finding[] {
  const isFew = others.length <= MAX_COMPARED;
  const byForm = Map.groupBy(others, ({ form }) => form);
  return rules.flatMap((rule): Finding[] => {
    const candidates = isFew ? others : (byForm.get(rule.form) ?? []);
    for (const other of candidates) {
      const finding = compare(rule, other);
      if (finding !== null) {
        return [finding];
      }
    }
    return [];
  });
}

function compare(rule: RuleAt, other: RuleAt): Finding | null {
  if (other === rule || !isScopeWithin(rule.policy, other.policy)) {
    return null;
  }
  const sameAction = rule.policy.action === other.policy.action;
  const isShut = rule.policy.action === "ALLOW" && other.policy.action === "DENY";
  if (!(sameAction || isShut) || !covers(other.fields, rule.fields)) {
    return null;
  }
  const isMutual = covers(rule.fields, other.fields) && isScopeWithin(other.policy, rule.policy);
  // Of two that are equal only the later one is idle.
  if (sameAction && isMutual && !isLater(rule, other)) {
    return null;
  }
  const where = `rule ${other.rule} of \`${other.policy.namespace}/${other.policy.name}\``;
  const [code, message] = isShut
    ? ["shut-by-deny", `everything the rule lets in is denied by ${where}`]
    : isMutual
      ? ["duplicate-rule", `${where} says the same`]
      : ["bypassed-rule", `${where} matches all that this rule matches, without its conditions`];
  return {
    code,
    severity: "warning",
    resource: rule.policy,
    path: ["spec", "rules", rule.rule],
    message,
    hint: "remove one of the two, or narrow the wider one",
  };
}

const isLater = (rule: RuleAt, other: RuleAt): boolean =>
  rule.policy === other.policy ? rule.rule > other.rule : rule.policy.order > other.policy.order;

/** Every workload that `inner` selects is selected by `outer`; both are of one namespace, or `outer` of the root one. */
export function isScopeWithin(inner: AuthorizationPolicy, outer: AuthorizationPolicy): boolean {
  const labels = inner.selector ?? {};
  return Object.entries(outer.selector ?? {}).every(([name, value]) => labels[name] === value);
}

export type Fields = ReturnType<typeof ruleFields>;

/** Whatever matches `narrow` matches `wide`; false where that is not plain to see. */
export function covers(wide: Fields, narrow: Fields): boolean {
  return (
    coversAlternatives(wide.from, narrow.from) &&
    coversAlternatives(wide.to, narrow.to) &&
    wide.when.every((field) => narrow.when.some((other) => implies(other, field)))
  );
}

type Alternatives = readonly (readonly Field[])[];

function coversAlternatives(wide: Alternatives, narrow: Alternatives): boolean {
  if (wide.length === 0) {
    return true;
  }
  return (
    narrow.length > 0 &&
    narrow.every((fields) =>
      wide.some((wanted) => wanted.every((field) => fields.some((other) => implies(other, field)))),
    )
  );
}

/** Where `given` holds, `wanted` holds too. */
function implies(given: Field, wanted: Field): boolean {
  const sameAttribute = JSON.stringify(given.attribute) === JSON.stringify(wanted.attribute);
  if (!sameAttribute || given.negated !== wanted.negated) {
    return false;
  }
  const [inner, outer] = given.negated ? [wanted.values, given.values] : [given.values, wanted.values];
  return inner.every((value) => outer.some((other) => value === other || isWithin(given, value, other)));
}

/** Attributes whose values are plain patterns on one text. */
const PATTERN_KINDS = ["source.principal", "methods", "paths", "connection.sni"];

function isWithin({ attribute }: Field, value: string, outer: string): boolean {
  if (!PATTERN_KINDS.includes(attribute.kind) || value.includes("{") || outer.includes("{")) {
    return false;
  }
  const [inner, wide] = [parsePattern(value), parsePattern(outer)];
  if (wide.kind === "presence") {
    return true;
  }
  if (inner.kind === "exact") {
    return matchesPattern(wide, inner.text);
  }
  return (
    (inner.kind === "prefix" && wide.kind === "prefix" && inner.text.startsWith(wide.text)) ||
    (inner.kind === "suffix" && wide.kind === "suffix" && inner.text.endsWith(wide.text))
  );
}
