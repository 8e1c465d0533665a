/** Where no ALLOW rule matched: the rule that comes nearest, and what it lacks; else a rule of its own for the request. */
import { formatPointer, type PatchOperation } from "../../base/json-patch.ts";
import { actualValue } from "../actual-value.ts";
import type { AuthorizationPolicy } from "../resources.ts";
import { matchesRule } from "../rule-index.ts";
import { type CompiledRule, compileField, type Field, type FieldTest } from "../rules.ts";
import { hasLabels } from "../select.ts";
import {
  compiledRules,
  contextOf,
  type Edit,
  enforced,
  type NearestMiss,
  nameOf,
  patched,
  rulesIn,
  type Scene,
} from "./scene.ts";

interface Candidate {
  readonly policy: AuthorizationPolicy;
  readonly rule: number;
  /** Tried in this order. */
  readonly distance: number;
  /** Made for the few that are tried: there may be thousands of rules. */
  readonly edits: () => readonly Edit[] | null;
}

/** Candidates tried out at most: the nearest come first. */
const MAX_TRIED = 32;
const MAX_LOOKED_AT = 1_000;

/** A rule that lacks more than this is another rule: widening it would let in more than the request. */
const NEAR = 2;

/** Behind every rule that is near, before those that are not; the policy of the narrowest scope first. */
const NEW_RULE = NEAR + 1;
const FAR = NEW_RULE + 3;

/** Null where no change of one ALLOW policy lets the request in. */
export function allowChange(scene: Scene): NearestMiss | null {
  const candidates = [
    ...compiledRules(scene, "allow").map((rule) => nearRule(scene, rule)),
    ...enforced(scene, "ALLOW").map((policy) => newRule(scene, policy)),
  ];
  const sorted = candidates.sort((a, b) => a.distance - b.distance);
  let tried = 0;
  for (const { policy, rule, edits: makeEdits } of sorted.slice(0, MAX_LOOKED_AT)) {
    const edits = makeEdits();
    if (edits === null) {
      continue;
    }
    if (++tried > MAX_TRIED) {
      break;
    }
    const patch = edits.flatMap((edit) => edit.patch);
    const next = patched(policy, patch);
    if (next !== null && rulesIn(scene, next).some((each) => matchesRule(each, scene.peer, scene.view))) {
      const would = `be allowed if ${edits.map((edit) => edit.text).join(" and ")}`;
      return { kind: policy.kind, policy: nameOf(policy), rule, would, patch };
    }
  }
  return null;
}

function nearRule(scene: Scene, rule: CompiledRule): Candidate {
  const lacking = lacks(scene, rule.when) + least(scene, rule.from) + least(scene, rule.to);
  return {
    policy: rule.policy,
    rule: rule.rule,
    distance: lacking <= NEAR ? lacking : FAR + lacking,
    edits: () => missingEdits(scene, rule),
  };
}

/** How many of these tests fail. */
function lacks({ peer, view }: Scene, tests: readonly FieldTest[]): number {
  let failing = 0;
  for (const { test } of tests) {
    failing += test(peer, view) ? 0 : 1;
  }
  return failing;
}

const least = (scene: Scene, alternatives: readonly (readonly FieldTest[])[]): number =>
  alternatives.reduce(
    (fewest, tests) => Math.min(fewest, lacks(scene, tests)),
    alternatives.length === 0 ? 0 : Infinity,
  );

/** The edits that make one rule match: per `from` and `to` the alternative that lacks least. */
function missingEdits(scene: Scene, { policy, rule, from, to, when }: CompiledRule): Edit[] | null {
  const base = ["spec", "rules", rule];
  const edit = (field: FieldTest, at: readonly (string | number)[]): Edit | null | undefined =>
    editFor(scene, policy, field, at);
  const part = (tests: readonly (readonly FieldTest[])[], name: "from" | "to", inner: string): Edit[] | null =>
    tests.length === 0
      ? []
      : best(tests.map((each, index) => editsOf(each, (field) => edit(field, [...base, name, index, inner]))));
  const conditions = policy.rules[rule]?.when ?? [];
  const parts = [
    part(from, "from", "source"),
    part(to, "to", "operation"),
    editsOf(when, (field) => edit(field, [...base, "when", conditions.indexOf(field.condition!)])),
  ];
  return parts.includes(null) ? null : parts.flatMap((edits) => edits ?? []);
}

const best = (options: readonly (Edit[] | null)[]): Edit[] | null =>
  options.reduce<Edit[] | null>(
    (least, option) => (option !== null && (least === null || option.length < least.length) ? option : least),
    null,
  );

/** The edits for the fields that do not hold; null where one of them cannot be made to. */
function editsOf(fields: readonly FieldTest[], edit: (field: FieldTest) => Edit | null | undefined): Edit[] | null {
  const edits: Edit[] = [];
  for (const field of fields) {
    const made = edit(field);
    if (made === null) {
      return null;
    }
    if (made !== undefined) {
      edits.push(made);
    }
  }
  return edits;
}

/** Undefined where the field holds already, null where no change of its values helps. */
function editFor(
  scene: Scene,
  policy: AuthorizationPolicy,
  field: FieldTest,
  at: readonly (string | number)[],
): Edit | null | undefined {
  if (field.test(scene.peer, scene.view)) {
    return undefined;
  }
  const name = field.condition === undefined ? field.field : `${field.field}\` of \`${field.condition.key}`;
  const pointer = [...at, field.field];
  return field.negated ? leaveOut(scene, policy, field, name, pointer) : include(scene, field, name, pointer);
}

function include(scene: Scene, field: Field, name: string, pointer: readonly (string | number)[]): Edit | null {
  const value = actualValue(field.attribute, scene.peerFacts, scene.view);
  return value === null
    ? null
    : {
        text: `\`${name}\` included \`${value}\``,
        patch: [{ op: "add", path: formatPointer([...pointer, "-"]), value }],
      };
}

function leaveOut(
  scene: Scene,
  policy: AuthorizationPolicy,
  field: Field,
  name: string,
  pointer: readonly (string | number)[],
): Edit | null {
  const matching = field.values.flatMap((value, index) => {
    const single = compileField({ ...field, values: [value] }, contextOf(scene, policy));
    return single !== null && !single.test(scene.peer, scene.view) ? [index] : [];
  });
  // A list emptied would leave a source or condition without values, which admission refuses.
  return matching.length === 0 || matching.length === field.values.length
    ? null
    : {
        text: `\`${name}\` left out ${matching.map((index) => `\`${field.values[index]}\``).join(", ")}`,
        patch: matching.reverse().map((index) => ({ op: "remove", path: formatPointer([...pointer, index]) })),
      };
}

/** As a last resort: a rule for just this caller and request. */
function newRule(scene: Scene, policy: AuthorizationPolicy): Candidate {
  const scope = hasLabels(policy) ? 0 : policy.namespace === scene.compiled.mesh.meshConfig.rootNamespace ? 2 : 1;
  return { policy, rule: policy.rules.length, distance: NEW_RULE + scope, edits: () => [ruleFor(scene, policy)] };
}

function ruleFor(scene: Scene, policy: AuthorizationPolicy): Edit {
  const { principal } = scene.peer;
  const { sourceIp } = scene.peerFacts;
  const source = principal !== null ? { principals: [principal] } : sourceIp === "" ? null : { ipBlocks: [sourceIp] };
  const operation = operationOf(scene);
  const rule = {
    ...(source === null ? {} : { from: [{ source }] }),
    ...(Object.keys(operation).length === 0 ? {} : { to: [{ operation }] }),
  };
  const who = principal ?? (sourceIp === "" ? "everyone" : sourceIp);
  return { text: `a rule let \`${who}\` reach ${describe(operation)}`, patch: [addRule(policy, rule)] };
}

function operationOf({ view, peer }: Scene): Readonly<Record<string, readonly string[]>> {
  if (view === null) {
    return peer.port < 0 ? {} : { ports: [String(peer.port)] };
  }
  const { method } = view.facts;
  return { ...(method ? { methods: [method] } : {}), ...(view.path ? { paths: [view.path] } : {}) };
}

function describe({ ports, methods, paths }: Readonly<Record<string, readonly string[]>>): string {
  const words = [...(methods ?? []), ...(paths ?? [])];
  return ports !== undefined ? `port ${ports[0]}` : words.length === 0 ? "it" : `\`${words.join(" ")}\``;
}

function addRule(policy: AuthorizationPolicy, rule: object): PatchOperation {
  if (policy.rules.length > 0) {
    return { op: "add", path: "/spec/rules/-", value: rule };
  }
  // Such a policy may have been written without any `spec`: replacing the whole of it fits either way.
  return policy.selector === null && policy.targetRefs.length === 0
    ? { op: "add", path: "/spec", value: { action: "ALLOW", rules: [rule] } }
    : { op: "add", path: "/spec/rules", value: [rule] };
}
