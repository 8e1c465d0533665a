/**
 * Mutants that change no decision, so that no test can notice them, as far as that is plain to see: what they lose or gain
 * is decided by another rule anyway. Whatever is not plain counts as a change.
 */
import { matchesPattern, parsePattern } from "../../base/pattern.ts";
import type { MeshScope } from "../compile.ts";
import { covers, type Fields, isScopeWithin } from "../lint/overlap.ts";
import { composeMtls } from "../mtls.ts";
import type { AuthorizationPolicy, Resource, Rule } from "../resources.ts";
import { type Field, ruleFields } from "../rules.ts";
import { selectResources, type WorkloadScope } from "../select.ts";
import { isHttpOnly } from "../tests.ts";
import type { Mutant } from "./mutants.ts";

export interface Surroundings {
  readonly resources: readonly Resource[];
  readonly mesh: MeshScope;
  /** The workloads that the tests know of. */
  readonly workloads: readonly WorkloadScope[];
}

/** Why no decision can change, or null. */
export function equivalence(mutant: Mutant, surroundings: Surroundings): string | null {
  const { resource, rule, kind } = mutant;
  if (resource.kind !== "AuthorizationPolicy") {
    return null;
  }
  const others = new Others(resource, rule, surroundings);
  if (rule === null) {
    return others.defaultDeny(resource) ? "another ALLOW policy denies by default too" : null;
  }
  const given = resource.rules[rule];
  if (given === undefined) {
    return null;
  }
  if (mutant.path.length === 3) {
    const fields = ruleFields(given);
    return kind === "drop" ? others.harmless(fields) : others.harmlessFlip(fields);
  }
  const regions = [...regionsOf(mutant, given), ...opensTcp(mutant, given)];
  const reasons = regions.map((region) => others.harmless(ruleFields(region)));
  return reasons.includes(null) ? null : (reasons[0] ?? null);
}

/** The requests that a change of one field loses or gains, as rules: the alternative alone, with the field turned round. */
function regionsOf({ path, kind, change }: Mutant, rule: Rule): Rule[] {
  const [, , , part, at] = path as readonly ["spec", "rules", number, "from" | "to" | "when", number];
  const field = String(path.at(-1));
  const only = (fields: Record<string, readonly string[]>): Rule =>
    part === "when"
      ? { ...rule, when: rule.when.map((each, index) => (index === at ? { ...each, ...noValues, ...fields } : each)) }
      : { ...rule, [part]: [fields] };
  const holder = (part === "when" ? rule.when[at] : rule[part][at]) as unknown as Record<string, readonly string[]>;
  const { [field]: values = [], ...rest } = holder;
  const opposite = field.startsWith("not")
    ? field.charAt(3).toLowerCase() + field.slice(4)
    : `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;
  if ((rest[opposite]?.length ?? 0) > 0) {
    return [rule, { from: [], to: [], when: [] }];
  }
  const star = change.endsWith("`*`") ? { [field]: ["*"] } : {};
  const gained = only({ ...rest, ...star, [opposite]: values });
  return kind === "widen" ? [gained] : [only(holder), gained];
}

/** An ALLOW rule that asks for HTTP allows no TCP connection; one that no longer does allows all that it says otherwise. */
function opensTcp({ resource, rule, mutated: [after] }: Mutant, before: Rule): Rule[] {
  if (resource.kind !== "AuthorizationPolicy" || resource.action !== "ALLOW" || after?.kind !== "AuthorizationPolicy") {
    return [];
  }
  const now = after.rules[rule ?? -1];
  return now !== undefined && asksForHttp(before) && !asksForHttp(now) ? [now] : [];
}

function asksForHttp(rule: Rule): boolean {
  const { from, to, when } = ruleFields(rule);
  return [...from.flat(), ...to.flat(), ...when].some(({ attribute }) => isHttpOnly(attribute));
}

const noValues = { values: [], notValues: [] };

interface OtherRule {
  readonly name: string;
  readonly fields: Fields;
}

/** The rules in force wherever a policy is, but for the one that is changed. */
class Others {
  readonly #policy: AuthorizationPolicy;
  readonly #all: readonly AuthorizationPolicy[];
  readonly #rule: number | null;
  readonly #rootNamespace: string;
  readonly #alwaysMutual: boolean;

  constructor(policy: AuthorizationPolicy, rule: number | null, { resources, mesh, workloads }: Surroundings) {
    this.#policy = policy;
    this.#rule = rule;
    this.#rootNamespace = mesh.meshConfig.rootNamespace;
    this.#all = resources.filter(
      (each) => each.kind === "AuthorizationPolicy" && !each.dryRun && each.targetRefs.length === 0,
    ) as AuthorizationPolicy[];
    this.#alwaysMutual = isAlwaysMutual(policy, resources, workloads, mesh);
  }

  /** Whether what `fields` match is decided the same with and without the rule. */
  harmless(fields: Fields): string | null {
    if (this.#alwaysMutual && asksForNoPrincipal(fields)) {
      return "every caller proves an identity here (STRICT)";
    }
    const denying = this.#covering("DENY", fields);
    if (denying !== null) {
      return `${denying} denies it anyway`;
    }
    if (this.#policy.action === "ALLOW") {
      const allowing = this.#covering("ALLOW", fields);
      return allowing === null ? null : `${allowing} allows it anyway`;
    }
    if (this.#policy.action === "DENY" && this.defaultDeny(null)) {
      const open = this.#rules("ALLOW", false).some((other) => !areDisjoint(other.fields, fields));
      return open ? null : "no ALLOW rule lets it in anyway";
    }
    return null;
  }

  /** ALLOW turned to DENY or back: only another DENY rule makes that the same. */
  harmlessFlip(fields: Fields): string | null {
    const denying = this.#covering("DENY", fields);
    const keepsDefault = this.#policy.action === "ALLOW" || this.defaultDeny(null);
    return denying !== null && keepsDefault ? `${denying} denies it anyway` : null;
  }

  /** Some ALLOW policy (other than `except`) selects every workload that this policy selects. */
  defaultDeny(except: AuthorizationPolicy | null): boolean {
    return this.#all.some((other) => other !== except && other.action === "ALLOW" && this.#isWider(other));
  }

  #covering(action: "ALLOW" | "DENY", fields: Fields): string | null {
    return this.#rules(action, true).find((other) => covers(other.fields, fields))?.name ?? null;
  }

  /** `wider`: only of policies that select whatever this one selects. */
  #rules(action: "ALLOW" | "DENY", wider: boolean): OtherRule[] {
    return this.#all.flatMap((other) => {
      if (other.action !== action || (wider ? !this.#isWider(other) : !this.#mayMeet(other))) {
        return [];
      }
      return other.rules.flatMap((rule, index) =>
        other === this.#policy && index === this.#rule
          ? []
          : [{ name: `rule ${index} of \`${other.namespace}/${other.name}\``, fields: ruleFields(rule) }],
      );
    });
  }

  #isWider(other: AuthorizationPolicy): boolean {
    const inScope = other.namespace === this.#rootNamespace || other.namespace === this.#policy.namespace;
    return inScope && isScopeWithin(this.#policy, other);
  }

  #mayMeet(other: AuthorizationPolicy): boolean {
    const namespaces = [other.namespace, this.#policy.namespace];
    return namespaces[0] === namespaces[1] || namespaces.includes(this.#rootNamespace);
  }
}

function isAlwaysMutual(
  policy: AuthorizationPolicy,
  resources: readonly Resource[],
  workloads: readonly WorkloadScope[],
  { meshConfig }: MeshScope,
): boolean {
  const selected = workloads
    .map((workload) => selectResources(resources, workload, meshConfig))
    .filter((each) => each.includes(policy));
  return (
    selected.length > 0 &&
    selected.every((each) => {
      const { mode, perPort } = composeMtls(each, meshConfig.rootNamespace);
      return mode === "STRICT" && [...perPort.values()].every((port) => port === "STRICT");
    })
  );
}

const isPrincipal = ({ attribute }: Field): boolean => attribute.kind === "source.principal";

function asksForNoPrincipal({ from, when }: Fields): boolean {
  const isAbsent = (field: Field): boolean => isPrincipal(field) && field.negated && field.values.includes("*");
  return (from.length > 0 && from.every((fields) => fields.some(isAbsent))) || when.some(isAbsent);
}

/** No request can match both, for each pair of alternatives contradicts itself. */
function areDisjoint(a: Fields, b: Fields): boolean {
  const contradicts = (x: readonly Field[], y: readonly Field[]): boolean =>
    x.some((field) => y.some((other) => excludes(field, other) || excludes(other, field)));
  const parts = (fields: Fields): readonly (readonly Field[])[][] => [[...fields.from], [...fields.to], [fields.when]];
  const [partsA, partsB] = [parts(a), parts(b)];
  return partsA.some((alternatives, index) => {
    const others = partsB[index] ?? [];
    return (
      alternatives.length > 0 && others.length > 0 && alternatives.every((x) => others.every((y) => contradicts(x, y)))
    );
  });
}

/** Whatever has one of `positive`'s values has none that `negative` leaves. */
function excludes(positive: Field, negative: Field): boolean {
  const isSame = JSON.stringify(positive.attribute) === JSON.stringify(negative.attribute);
  if (!isSame || positive.negated || !negative.negated) {
    return false;
  }
  return positive.values.every((value) => negative.values.some((other) => isWithin(positive, value, other)));
}

function isWithin(field: Field, value: string, outer: string): boolean {
  if (value === outer) {
    return true;
  }
  const [inner, wide] = [parsePattern(value), parsePattern(outer)];
  return isPrincipal(field) && inner.kind === "exact" && matchesPattern(wide, inner.text);
}
