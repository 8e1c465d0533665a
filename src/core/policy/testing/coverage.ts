/**
 * What a run of PolicyTests exercised: per rule how often it matched and decided, per field how often it held, per value
 * how often it was met. A request that was refused before any policy (plaintext, a bad token) exercises none.
 */
import type { Place } from "../../base/errors.ts";
import type { Path } from "../../base/yaml.ts";
import { Decider } from "../decide.ts";
import { viewOf } from "../evaluate.ts";
import { peerOf } from "../facts.ts";
import type { Action, AuthorizationPolicy } from "../resources.ts";
import { resourceKey } from "../resources.ts";
import { compileField, type Field, type FieldTest, ruleFields } from "../rules.ts";
import { type HttpView, isHttpOnly } from "../tests.ts";
import type { CaseResult, RunOptions, Suite } from "./run.ts";

export interface Share {
  readonly total: number;
  readonly covered: number;
  /** One decimal; 100 where there is nothing to cover. */
  readonly percent: number;
}

export interface ValueCoverage extends Place {
  readonly value: string;
  /** Requests that met it; of a `notX`, that it kept away. */
  readonly matched: number;
}

export interface FieldCoverage extends Place {
  readonly field: string;
  /** The condition's key, in `when`. */
  readonly key?: string;
  /** Requests for which it held, and for which it did not. */
  readonly held: number;
  readonly failed: number;
  readonly values: readonly ValueCoverage[];
}

export interface RuleCoverage extends Place {
  readonly policy: string;
  readonly action: Action;
  readonly rule: number;
  /** Requests that it matched, and those of them that it decided. */
  readonly matched: number;
  readonly decided: number;
  readonly fields: readonly FieldCoverage[];
}

export interface Coverage {
  /** Covered: a request matched it. */
  readonly rules: Share;
  /** Covered: one of its values was met. */
  readonly fields: Share;
  readonly values: Share;
  readonly byRule: readonly RuleCoverage[];
}

interface ValueProbe extends ValueCoverage {
  matched: number;
  readonly test: FieldTest | null;
}

interface FieldProbe extends FieldCoverage {
  held: number;
  failed: number;
  readonly values: ValueProbe[];
  readonly test: FieldTest | null;
  readonly given: Field;
}

interface RuleProbe extends RuleCoverage {
  matched: number;
  decided: number;
  readonly from: readonly (readonly FieldProbe[])[];
  readonly to: readonly (readonly FieldProbe[])[];
  readonly when: readonly FieldProbe[];
}

/** Coverage of several suites together; the same policy of the same file counts once. */
export function coverageOf(
  runs: readonly { readonly suite: Suite; readonly results: readonly CaseResult[] }[],
  options: RunOptions,
): Coverage {
  const probes = new Map<string, RuleProbe[]>();
  for (const { suite, results } of runs) {
    const decider = new Decider(suite.resources, suite.mesh, options);
    const own = new Map<AuthorizationPolicy, RuleProbe[]>();
    for (const resource of suite.resources) {
      if (resource.kind === "AuthorizationPolicy") {
        const key = `${resource.place.file}:${resource.place.line} ${resourceKey(resource)}`;
        const made = probes.get(key) ?? probesOf(resource, suite);
        probes.set(key, made);
        own.set(resource, made);
      }
    }
    for (const result of results) {
      probe(result, decider, own);
    }
  }
  return summary([...probes.values()].flat());
}

function probe(
  result: CaseResult,
  decider: Decider,
  own: ReadonlyMap<AuthorizationPolicy, readonly RuleProbe[]>,
): void {
  const { compiled, peer, http, refused } = decider.prepare(result.case.request);
  if (refused !== null) {
    return;
  }
  const known = peerOf(peer);
  const view = http === null ? null : { ...viewOf(http, known) };
  for (const policy of compiled.policies) {
    for (const rule of own.get(policy) ?? []) {
      const matched = probeRule(rule, known, view);
      rule.matched += matched ? 1 : 0;
      const { answer } = result;
      rule.decided += matched && answer.policy === rule.policy && answer.rule === rule.rule ? 1 : 0;
    }
  }
}

type PeerView = ReturnType<typeof peerOf>;

function probeRule(rule: RuleProbe, peer: PeerView, view: HttpView | null): boolean {
  let dropped = false;
  const holds = (field: FieldProbe): boolean => {
    if (field.test === null || (view === null && isHttpOnly(field.given.attribute))) {
      dropped = true;
      return true;
    }
    const held = field.test.test(peer, view);
    field.held += held ? 1 : 0;
    field.failed += held ? 0 : 1;
    for (const value of field.values) {
      value.matched += value.test?.test(peer, view) === true ? 1 : 0;
    }
    return held;
  };
  // Every field is asked, also where another one has failed: each is reported.
  const all = (fields: readonly FieldProbe[]): boolean => fields.map(holds).every(Boolean);
  const any = (alternatives: readonly (readonly FieldProbe[])[]): boolean =>
    alternatives.length === 0 || alternatives.map(all).some(Boolean);
  const matched = [any(rule.from), any(rule.to), all(rule.when)].every(Boolean);
  return matched && !(dropped && rule.action === "ALLOW");
}

function probesOf(policy: AuthorizationPolicy, suite: Suite): RuleProbe[] {
  const { trustDomain, meshConfig } = suite.mesh;
  const context = { policyNamespace: policy.namespace, trustDomains: [trustDomain, ...meshConfig.trustDomainAliases] };
  return policy.rules.map((given, rule): RuleProbe => {
    const base: Path = ["spec", "rules", rule];
    const probeOf = (field: Field, at: Path): FieldProbe => ({
      field: field.field,
      ...(field.condition === undefined ? {} : { key: field.condition.key }),
      ...suite.locate(policy, [...at, field.field]),
      held: 0,
      failed: 0,
      given: field,
      test: compileField(field, context),
      values: field.values.map((value, index) => ({
        value,
        ...suite.locate(policy, [...at, field.field, index]),
        matched: 0,
        test: compileField({ ...field, negated: false, values: [value] }, context),
      })),
    });
    const fields = ruleFields(given);
    const from = fields.from.map((each, at) => each.map((field) => probeOf(field, [...base, "from", at, "source"])));
    const to = fields.to.map((each, at) => each.map((field) => probeOf(field, [...base, "to", at, "operation"])));
    const when = fields.when.map((field) => probeOf(field, [...base, "when", given.when.indexOf(field.condition!)]));
    return {
      policy: `${policy.namespace}/${policy.name}`,
      action: policy.action,
      rule,
      ...suite.locate(policy, base),
      matched: 0,
      decided: 0,
      fields: [...from.flat(), ...to.flat(), ...when],
      from,
      to,
      when,
    };
  });
}

function summary(rules: readonly RuleProbe[]): Coverage {
  const fields = rules.flatMap((rule) => rule.fields);
  const values = fields.flatMap((field) => field.values);
  return {
    rules: share(rules, (rule) => rule.matched > 0),
    fields: share(fields, (field) => field.values.some(({ matched }) => matched > 0)),
    values: share(values, (value) => value.matched > 0),
    byRule: rules.map(({ from: _from, to: _to, when: _when, ...rule }) => ({
      ...rule,
      fields: (rule.fields as readonly FieldProbe[]).map(({ test: _test, given: _given, ...field }) => ({
        ...field,
        values: field.values.map(({ test: _valueTest, ...value }) => value),
      })),
    })),
  };
}

export function share<T>(items: readonly T[], isCovered: (item: T) => boolean): Share {
  const covered = items.filter(isCovered).length;
  const percent = items.length === 0 ? 100 : Math.floor((covered * 1_000) / items.length) / 10;
  return { total: items.length, covered, percent };
}
