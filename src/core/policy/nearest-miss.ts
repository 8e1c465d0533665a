/**
 * For a denial: the smallest change of one policy that would have allowed the request, as a patch. Each is tried out on
 * the same request before it is proposed.
 */
import { applyPatch, formatPointer, type PatchOperation } from "../base/json-patch.ts";
import { actualValue } from "./actual-value.ts";
import type { CompiledPolicy } from "./compile.ts";
import { viewOf } from "./evaluate.ts";
import { type HttpFacts, type Peer, type PeerFacts, peerOf } from "./facts.ts";
import { parseResourceJson, resourceDocument } from "./parse.ts";
import type { AuthorizationPolicy } from "./resources.ts";
import { matchesRule } from "./rule-index.ts";
import { type CompiledRule, compileField, compileRule, type Field, type Layer, ruleFields } from "./rules.ts";
import { type HttpView, isHttpOnly, type TestContext } from "./tests.ts";
import type { Verdict } from "./verdict.ts";

export interface NearestMiss {
  readonly policy: string;
  readonly rule: number;
  /** Follows "would": `be allowed if \`methods\` included \`PUT\``. */
  readonly would: string;
  /** SPEC: RFC 6902, on that resource. */
  readonly patch: readonly PatchOperation[];
}

/** One change of one field. */
interface Edit {
  readonly text: string;
  readonly patch: readonly PatchOperation[];
}

interface Candidate {
  readonly policy: AuthorizationPolicy;
  readonly rule: number;
  readonly edits: readonly Edit[];
  /** Any edit of a rule that exists comes first. */
  readonly lastResort?: true;
}

/** The facts of the denial, and the compiler's context. */
interface Scene {
  readonly compiled: CompiledPolicy;
  readonly domains: readonly string[];
  readonly peerFacts: PeerFacts;
  readonly peer: Peer;
  readonly view: HttpView | null;
}

/** Candidates tried out at most: the nearest come first. */
const MAX_TRIED = 32;
const MANY = 1_000;

export function nearestMiss(
  compiled: CompiledPolicy,
  peerFacts: PeerFacts,
  request: HttpFacts | null,
  verdict: Pick<Verdict, "reason" | "policy" | "rule">,
): NearestMiss | null {
  const peer = peerOf(peerFacts);
  const { trustDomain, meshConfig } = compiled.mesh;
  const scene: Scene = {
    compiled,
    domains: [trustDomain, ...meshConfig.trustDomainAliases],
    peerFacts,
    peer,
    view: request === null ? null : { ...viewOf(request, peer) },
  };
  const candidates =
    verdict.reason === "no-allow-matched"
      ? allowCandidates(scene)
      : verdict.reason === "deny-rule"
        ? denyCandidates(scene, verdict)
        : [];
  const sorted = candidates.map((candidate, index) => ({ candidate, index }));
  const distance = ({ edits, lastResort }: Candidate): number => (lastResort ? MANY : edits.length);
  sorted.sort((a, b) => distance(a.candidate) - distance(b.candidate) || a.index - b.index);
  for (const { candidate } of sorted.slice(0, MAX_TRIED)) {
    const patch = candidate.edits.flatMap((edit) => edit.patch);
    if (wouldAllow(scene, candidate.policy, patch)) {
      return {
        policy: `${candidate.policy.namespace}/${candidate.policy.name}`,
        rule: candidate.rule,
        would: `be allowed if ${candidate.edits.map((edit) => edit.text).join(" and ")}`,
        patch,
      };
    }
  }
  return null;
}

const layerOf = (scene: Scene): Layer => (scene.view === null ? "tcp" : "http");

const enforced = (scene: Scene, action: AuthorizationPolicy["action"]): readonly AuthorizationPolicy[] =>
  scene.compiled.policies.filter((policy) => policy.action === action && !policy.dryRun);

function allowCandidates(scene: Scene): Candidate[] {
  return enforced(scene, "ALLOW").flatMap((policy) => {
    const perRule = policy.rules.flatMap((_, rule) => {
      const edits = missingEdits(scene, policy, rule);
      return edits === null ? [] : [{ policy, rule, edits }];
    });
    return [...perRule, ...newRule(scene, policy)];
  });
}

/** The edits that make one rule match: per `from` and `to` the alternative that lacks least. */
function missingEdits(scene: Scene, policy: AuthorizationPolicy, rule: number): Edit[] | null {
  const fields = ruleFields(policy.rules[rule]!);
  const base = ["spec", "rules", rule];
  const context: TestContext = { policyNamespace: policy.namespace, trustDomains: scene.domains };
  const edit = (field: Field, at: readonly (string | number)[]): Edit | null | undefined =>
    editFor(scene, field, context, at);
  const part = (alternatives: readonly (readonly Field[])[], name: "from" | "to", inner: string): Edit[] | null =>
    alternatives.length === 0
      ? []
      : best(alternatives.map((each, index) => editsOf(each, (field) => edit(field, [...base, name, index, inner]))));
  const from = part(fields.from, "from", "source");
  const to = part(fields.to, "to", "operation");
  const conditions = policy.rules[rule]!.when;
  const when = editsOf(fields.when, (field) => edit(field, [...base, "when", conditions.indexOf(field.condition!)]));
  return from === null || to === null || when === null ? null : [...from, ...to, ...when];
}

const best = (options: readonly (Edit[] | null)[]): Edit[] | null =>
  options.reduce<Edit[] | null>(
    (least, option) => (option !== null && (least === null || option.length < least.length) ? option : least),
    null,
  );

/** The edits for the fields that do not hold; null where one of them cannot be made to. */
function editsOf(fields: readonly Field[], edit: (field: Field) => Edit | null | undefined): Edit[] | null {
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
  field: Field,
  context: TestContext,
  at: readonly (string | number)[],
): Edit | null | undefined {
  if (scene.view === null && isHttpOnly(field.attribute)) {
    return null;
  }
  const compiled = compileField(field, context);
  if (compiled === null) {
    return null;
  }
  if (compiled.test(scene.peer, scene.view)) {
    return undefined;
  }
  const name = field.condition === undefined ? field.field : `${field.field}\` of \`${field.condition.key}`;
  const pointer = [...at, field.field];
  if (!field.negated) {
    const value = actualValue(field.attribute, scene.peerFacts, scene.view);
    return value === null
      ? null
      : {
          text: `\`${name}\` included \`${value}\``,
          patch: [{ op: "add", path: formatPointer([...pointer, "-"]), value }],
        };
  }
  const matching = field.values.flatMap((value, index) => {
    const single = compileField({ ...field, values: [value] }, context);
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

/** As a last resort: a rule of its own for just this caller and request. */
function newRule(scene: Scene, policy: AuthorizationPolicy): Candidate[] {
  const { principal } = scene.peer;
  if (principal === null) {
    return [];
  }
  const method = scene.view?.facts.method ?? null;
  const path = scene.view?.path ?? null;
  const operation =
    scene.view === null
      ? { ports: [String(scene.peer.port)] }
      : { ...(method === null ? {} : { methods: [method] }), ...(path === null ? {} : { paths: [path] }) };
  const rule = { from: [{ source: { principals: [principal] } }], to: [{ operation }] };
  const patch: PatchOperation =
    policy.rules.length === 0
      ? { op: "add", path: "/spec/rules", value: [rule] }
      : { op: "add", path: "/spec/rules/-", value: rule };
  const what = scene.view === null ? `port ${scene.peer.port}` : `\`${[method, path].filter(Boolean).join(" ")}\``;
  const edit: Edit = { text: `a rule let \`${principal}\` reach ${what}`, patch: [patch] };
  return [{ policy, rule: policy.rules.length, edits: [edit], lastResort: true }];
}

/** Exceptions to the rule that denied: for this caller, this path, this address. */
function denyCandidates(scene: Scene, verdict: Pick<Verdict, "policy" | "rule">): Candidate[] {
  const policy = enforced(scene, "DENY").find(({ namespace, name }) => `${namespace}/${name}` === verdict.policy);
  const { rule } = verdict;
  const given = rule === null ? undefined : policy?.rules[rule];
  if (policy === undefined || rule === null || given === undefined) {
    return [];
  }
  const path = scene.view?.path ?? null;
  const options: readonly (readonly ["from" | "to", string, string, string | null])[] = [
    ["from", "source", "notPrincipals", scene.peer.principal],
    ["to", "operation", "notPaths", path],
    ["from", "source", "notIpBlocks", scene.peerFacts.sourceIp === "" ? null : scene.peerFacts.sourceIp],
  ];
  return options.flatMap(([part, inner, field, value]) => {
    if (value === null) {
      return [];
    }
    const alternatives: readonly Readonly<Record<string, readonly string[] | undefined>>[] = given[part];
    const base = ["spec", "rules", rule, part];
    const patch: PatchOperation[] =
      alternatives.length === 0
        ? [{ op: "add", path: formatPointer(base), value: [{ [inner]: { [field]: [value] } }] }]
        : alternatives.map((alternative, index) => {
            const at = [...base, index, inner, field];
            return alternative[field] === undefined
              ? { op: "add", path: formatPointer(at), value: [value] }
              : { op: "add", path: formatPointer([...at, "-"]), value };
          });
    return [{ policy, rule, edits: [{ text: `\`${field}\` included \`${value}\``, patch }] }];
  });
}

/** Replays the request with the patched policy in place of the old one. */
function wouldAllow(scene: Scene, policy: AuthorizationPolicy, patch: readonly PatchOperation[]): boolean {
  const patched = patchPolicy(policy, patch);
  if (patched === null) {
    return false;
  }
  const layer = layerOf(scene);
  const rules = patched.rules
    .map((_, index) => compileRule(patched, index, layer, scene.domains))
    .filter((rule) => rule !== null);
  const sets = layer === "tcp" ? scene.compiled.tcp : scene.compiled.http;
  const matchesOne = (list: readonly CompiledRule[], action: AuthorizationPolicy["action"]): boolean =>
    [...list.filter((rule) => rule.policy !== policy), ...(policy.action === action ? rules : [])].some((rule) =>
      matchesRule(rule, scene.peer, scene.view),
    );
  return !matchesOne(sets.deny.rules, "DENY") && (!sets.denyByDefault || matchesOne(sets.allow.rules, "ALLOW"));
}

function patchPolicy(policy: AuthorizationPolicy, patch: readonly PatchOperation[]): AuthorizationPolicy | null {
  try {
    const resource = applyPatch(resourceDocument(policy), patch);
    const parsed = parseResourceJson(JSON.stringify({ order: policy.order, place: policy.place, resource }));
    return parsed.kind === "AuthorizationPolicy" ? parsed : null;
  } catch {
    return null;
  }
}
