/**
 * Policies with one thing wrong: a rule dropped, widened or flipped. A test suite that means something notices each of
 * them, but for those that change no decision.
 */
import { parsePattern } from "../../base/pattern.ts";
import type { Path } from "../../base/yaml.ts";
import { positiveName } from "../check-fields.ts";
import type {
  AuthorizationPolicy,
  Condition,
  Operation,
  PeerAuthentication,
  Resource,
  Rule,
  Source,
} from "../resources.ts";

export type MutantKind = "drop" | "widen" | "flip";

export interface Mutant {
  readonly kind: MutantKind;
  readonly resource: AuthorizationPolicy | PeerAuthentication;
  /** Null where it is about the whole resource. */
  readonly rule: number | null;
  /** What was changed, inside the resource. */
  readonly path: Path;
  /** `the rule is dropped`, `` `methods` is gone ``. */
  readonly change: string;
  /** What takes the resource's place. */
  readonly mutated: readonly Resource[];
}

type Fields = Readonly<Record<string, readonly string[] | undefined>>;

/** The mutants of one resource, in the order of its rules. */
export function mutantsOf(resource: Resource): Mutant[] {
  switch (resource.kind) {
    case "AuthorizationPolicy":
      return resource.targetRefs.length > 0 || resource.dryRun ? [] : policyMutants(resource);
    case "PeerAuthentication":
      return resource.mode === "STRICT" ? [permissive(resource)] : [];
    case "RequestAuthentication":
      return [];
  }
}

function permissive(resource: PeerAuthentication): Mutant {
  return {
    kind: "widen",
    resource,
    rule: null,
    path: ["spec", "mtls", "mode"],
    change: "`STRICT` becomes `PERMISSIVE`: plaintext is taken too",
    mutated: [{ ...resource, mode: "PERMISSIVE" }],
  };
}

function policyMutants(policy: AuthorizationPolicy): Mutant[] {
  if (policy.rules.length === 0) {
    return policy.action === "ALLOW"
      ? [
          {
            kind: "drop",
            resource: policy,
            rule: null,
            path: ["spec"],
            change: "the policy is gone: it no longer denies by default",
            mutated: [],
          },
        ]
      : [];
  }
  return policy.rules.flatMap((rule, index) => [
    drop(policy, index),
    ...widened(policy, rule, index),
    ...(policy.action === "ALLOW" || policy.action === "DENY" ? [flipAction(policy, index)] : []),
    ...negated(policy, rule, index),
  ]);
}

const rulePath = (rule: number): Path => ["spec", "rules", rule];

function drop(policy: AuthorizationPolicy, rule: number): Mutant {
  return {
    kind: "drop",
    resource: policy,
    rule,
    path: rulePath(rule),
    change: "the rule is dropped",
    mutated: [{ ...policy, rules: policy.rules.filter((_, index) => index !== rule) }],
  };
}

/** What the rule lets through it keeps out, and the other way round; the other rules stay. */
function flipAction(policy: AuthorizationPolicy, rule: number): Mutant {
  const action = policy.action === "ALLOW" ? "DENY" : "ALLOW";
  const rules = policy.rules.filter((_, index) => index === rule);
  const flipped: AuthorizationPolicy = { ...policy, name: `${policy.name}-flipped`, action, rules };
  return {
    kind: "flip",
    resource: policy,
    rule,
    path: rulePath(rule),
    change: `${policy.action} becomes ${action}`,
    mutated: [{ ...policy, rules: policy.rules.filter((_, index) => index !== rule) }, flipped],
  };
}

/** One field of a rule: where it is, and the rule with other fields in its place. */
interface Site {
  readonly field: string;
  readonly key: string | null;
  readonly values: readonly string[];
  readonly path: Path;
  /** The rule with this field replaced (`null`: without it). */
  put(fields: Fields | null): Rule;
}

function sitesOf(rule: Rule, index: number): Site[] {
  const base = rulePath(index);
  const named = (part: "from" | "to", inner: string): Site[] =>
    (rule[part] as readonly Fields[]).flatMap((alternative, at) =>
      Object.entries(alternative).map(([field, values = []]) => ({
        field,
        key: null,
        values,
        path: [...base, part, at, inner, field],
        put: (fields) => withAlternative(rule, part, at, replaced(alternative, field, fields)),
      })),
    );
  const conditions = rule.when.flatMap((condition, at) =>
    (["values", "notValues"] as const)
      .filter((field) => condition[field].length > 0)
      .map((field): Site => {
        const path = [...base, "when", at, field];
        const put = (fields: Fields | null): Rule => withCondition(rule, at, condition, field, fields);
        return { field, key: condition.key, values: condition[field], path, put };
      }),
  );
  return [...named("from", "source"), ...named("to", "operation"), ...conditions];
}

function replaced(alternative: Fields, field: string, fields: Fields | null): Fields {
  const { [field]: _gone, ...rest } = alternative;
  return { ...rest, ...(fields ?? {}) };
}

/** An alternative without fields matches everything: then so does the whole list. */
function withAlternative(rule: Rule, part: "from" | "to", at: number, fields: Fields): Rule {
  const list: readonly Fields[] = rule[part];
  const isOpen = Object.keys(fields).length === 0;
  const next = isOpen ? [] : list.map((each, index) => (index === at ? fields : each));
  return part === "from" ? { ...rule, from: next as readonly Source[] } : { ...rule, to: next as readonly Operation[] };
}

function withCondition(
  rule: Rule,
  at: number,
  condition: Condition,
  field: "values" | "notValues",
  fields: Fields | null,
): Rule {
  const next: Condition = { ...condition, [field]: [], ...(fields ?? {}) };
  const isOpen = next.values.length === 0 && next.notValues.length === 0;
  return { ...rule, when: rule.when.flatMap((each, index) => (index !== at ? [each] : isOpen ? [] : [next])) };
}

const isNegated = (field: string): boolean => field.startsWith("not");

const opposite = (field: string): string =>
  isNegated(field) ? positiveName(field) : `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;

/** Fields whose values are patterns, so that `*` is "any that is there". */
const TAKES_STAR = ["principals", "requestPrincipals", "namespaces", "trustDomains", "hosts", "methods", "paths"];
const KEY_TAKES_NO_STAR = /^(source\.ip|remote\.ip|destination\.(ip|port)|source\.serviceAccount)$/;

function takesStar({ field, key, values }: Site): boolean {
  const isKnown = key === null ? TAKES_STAR.includes(field) : field === "values" && !KEY_TAKES_NO_STAR.test(key);
  return isKnown && !values.some((value) => parsePattern(value).kind === "presence");
}

function widened(policy: AuthorizationPolicy, rule: Rule, index: number): Mutant[] {
  return sitesOf(rule, index).flatMap((site) => {
    const make = (fields: Fields | null, change: string): Mutant =>
      changed(policy, index, "widen", site, site.put(fields), change);
    return [make(null, "is gone"), ...(takesStar(site) ? [make({ [site.field]: ["*"] }, "becomes `*`")] : [])];
  });
}

function negated(policy: AuthorizationPolicy, rule: Rule, index: number): Mutant[] {
  return sitesOf(rule, index).flatMap((site) => {
    const other = opposite(site.field);
    const taken = hasField(rule, site, other);
    const next = site.put({ [other]: site.values });
    return taken ? [] : [changed(policy, index, "flip", site, next, `becomes \`${other}\``)];
  });
}

/** Both `X` and `notX` are there: there is no place for another. */
function hasField(rule: Rule, { path }: Site, other: string): boolean {
  const [, , , part, at] = path;
  const holder =
    part === "when" ? rule.when[Number(at)] : (rule[part as "from" | "to"][Number(at)] as Fields | undefined);
  return ((holder as Fields | undefined)?.[other]?.length ?? 0) > 0;
}

function changed(
  policy: AuthorizationPolicy,
  rule: number,
  kind: MutantKind,
  { field, key, path }: Site,
  next: Rule,
  change: string,
): Mutant {
  const name = key === null ? `\`${field}\`` : `\`${field}\` of \`${key}\``;
  return {
    kind,
    resource: policy,
    rule,
    path,
    change: `${name} ${change}`,
    mutated: [{ ...policy, rules: policy.rules.map((each, at) => (at === rule ? next : each)) }],
  };
}
