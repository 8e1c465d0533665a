/**
 * A rule as tests. On TCP, what asks for HTTP is dropped: an ALLOW rule as a whole (stricter), of a DENY or AUDIT rule
 * only that part (wider). SOURCE: istio pilot/pkg/security/authz/model/model.go (checkError).
 */
import { positiveName } from "./check-fields.ts";
import { conditionAttribute } from "./condition-key.ts";
import type { AuthorizationPolicy, Condition, Operation, Rule, Source } from "./resources.ts";
import { type Attribute, compileTest, FIELD_ATTRIBUTES, isHttpOnly, type Test, type TestContext } from "./tests.ts";

export type Layer = "http" | "tcp";

/** One field of a rule: `notPaths` of an operation, or the `values` of a condition. */
export interface Field {
  /** The field's own name, as `notPaths`; `values` or `notValues` in a condition. */
  readonly field: string;
  /** The condition it is of, in `when`. */
  readonly condition?: Condition;
  readonly attribute: Attribute;
  readonly values: readonly string[];
  readonly negated: boolean;
}

/** A field with the test of it, negation included. */
export interface FieldTest extends Field {
  readonly test: Test;
}

/** All tests of an alternative must hold; one alternative of `from` and one of `to` must; so must all of `when`. */
export interface CompiledRule {
  readonly policy: AuthorizationPolicy;
  readonly rule: number;
  /** Envoy's name of it, in whose order rules are tried: `ns[prod]-policy[allow]-rule[0]`. */
  readonly id: string;
  readonly from: readonly (readonly FieldTest[])[];
  readonly to: readonly (readonly FieldTest[])[];
  readonly when: readonly FieldTest[];
}

/** The rule for one layer, or null where it is dropped there. */
export function compileRule(
  policy: AuthorizationPolicy,
  rule: number,
  layer: Layer,
  trustDomains: readonly string[],
  shared?: TestContext["shared"],
): CompiledRule | null {
  const given = policy.rules[rule];
  if (given === undefined) {
    return null;
  }
  const context: TestContext = {
    policyNamespace: policy.namespace,
    trustDomains,
    ...(shared === undefined ? {} : { shared }),
  };
  const fields = ruleFields(given);
  let dropped = false;
  const compile = (each: readonly Field[]): FieldTest[] =>
    each.flatMap((field) => {
      const test = layer === "tcp" && isHttpOnly(field.attribute) ? null : compileField(field, context);
      dropped ||= test === null;
      return test === null ? [] : [test];
    });
  const result = {
    policy,
    rule,
    id: `ns[${policy.namespace}]-policy[${policy.name}]-rule[${rule}]`,
    from: fields.from.map(compile),
    to: fields.to.map(compile),
    when: compile(fields.when),
  };
  return dropped && policy.action === "ALLOW" ? null : result;
}

/** The fields of a rule that have values, in the order they are written in. */
export function ruleFields(rule: Rule): {
  readonly from: readonly (readonly Field[])[];
  readonly to: readonly (readonly Field[])[];
  readonly when: readonly Field[];
} {
  return { from: rule.from.map(namedFields), to: rule.to.map(namedFields), when: rule.when.flatMap(conditionFields) };
}

function namedFields(fields: Source | Operation): Field[] {
  return Object.entries(fields).flatMap(([field, values]) => {
    const attribute = FIELD_ATTRIBUTES[positiveName(field)];
    return attribute === undefined || values === undefined
      ? []
      : [{ field, attribute, values, negated: field.startsWith("not") }];
  });
}

function conditionFields(condition: Condition): Field[] {
  const { key, values, notValues } = condition;
  const attribute = conditionAttribute(key);
  if (attribute === null) {
    return [];
  }
  const positive = values.length === 0 ? [] : [{ field: "values", attribute, values, negated: false, condition }];
  const negative =
    notValues.length === 0 ? [] : [{ field: "notValues", attribute, values: notValues, negated: true, condition }];
  return [...positive, ...negative];
}

export function compileField(field: Field, context: TestContext): FieldTest | null {
  const { shared } = context;
  const name = shared === undefined || field.values.length > MOST_SHARED ? null : testName(field, context);
  const known = name === null ? undefined : shared?.get(name);
  const test = known === undefined ? makeTest(field, context) : known;
  if (name !== null && known === undefined) {
    shared?.set(name, test);
  }
  return test === null ? null : { ...field, test };
}

/** Long lists are hardly written twice. */
const MOST_SHARED = 8;

/** Equal for fields that ask for the same. */
function testName({ attribute, negated, values }: Field, { policyNamespace }: TestContext): string {
  const what =
    attribute.kind === "header" ? attribute.name : attribute.kind === "claim" ? attribute.path?.join("\0") : "";
  const where = attribute.kind === "source.serviceAccount" ? policyNamespace : "";
  return `${attribute.kind}\0${what}\0${where}\0${negated}\0${values.join("\0")}`;
}

function makeTest({ attribute, values, negated }: Field, context: TestContext): Test | null {
  const test = compileTest(attribute, values, context);
  return test === null || !negated ? test : (peer, request) => !test(peer, request);
}
