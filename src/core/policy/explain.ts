/** Why a decision came out as it did: every rule, every field that was compared, and what came nearest. */
import type { CompiledPolicy } from "./compile.ts";
import { viewOf } from "./evaluate.ts";
import { type HttpFacts, type Peer, type PeerFacts, peerOf } from "./facts.ts";
import { type NearestMiss, nearestChanges, onlyOne, type TokenReplay } from "./nearest/changes.ts";
import type { Action, AuthorizationPolicy } from "./resources.ts";
import { compileField, type Field, type Layer, ruleFields } from "./rules.ts";
import { type HttpView, isHttpOnly, type TestContext } from "./tests.ts";
import type { Verdict } from "./verdict.ts";

export interface Explanation {
  /** One entry per rule of every AuthorizationPolicy that selects the workload. */
  readonly explain: readonly RuleExplanation[];
  /** For a denial, what would have to change; null where no change of one resource would do. */
  readonly nearestMiss?: NearestMiss | null;
  /** For a denial, the changes that together would do; none where no change helps. */
  readonly changes?: readonly NearestMiss[];
}

export interface RuleExplanation {
  /** `namespace/name`. */
  readonly policy: string;
  readonly action: Action;
  readonly rule: number;
  /** Per alternative, per field that was compared, whether it held (`notX`: whether none matched). */
  readonly from: readonly Readonly<Record<string, boolean>>[];
  readonly to: readonly Readonly<Record<string, boolean>>[];
  readonly when: readonly { readonly key: string; readonly values?: boolean; readonly notValues?: boolean }[];
  readonly matched: boolean;
  /** The rule asks for HTTP, this is TCP: it is not in force. */
  readonly dropped?: true;
  readonly dryRun?: true;
}

/** Explains a decision; not for the hot path. `request` is null on TCP. */
export function explain(
  compiled: CompiledPolicy,
  peer: PeerFacts,
  request: HttpFacts | null,
  verdict: Verdict,
  replay: TokenReplay | null = null,
): Explanation {
  const known = peerOf(peer);
  const view = request === null ? null : { ...viewOf(request, known) };
  const rules = compiled.policies.flatMap((policy) =>
    policy.rules.map((_, index) => explainRule(compiled, policy, index, known, view)),
  );
  if (verdict.decision === "allow") {
    return { explain: rules };
  }
  const changes = nearestChanges({ compiled, peer, request, reason: verdict.reason, replay });
  return { explain: rules, nearestMiss: onlyOne(changes), changes };
}

export function testContext(compiled: CompiledPolicy, policy: AuthorizationPolicy): TestContext {
  const { trustDomain, meshConfig } = compiled.mesh;
  return { policyNamespace: policy.namespace, trustDomains: [trustDomain, ...meshConfig.trustDomainAliases] };
}

function explainRule(
  compiled: CompiledPolicy,
  policy: AuthorizationPolicy,
  index: number,
  peer: Peer,
  view: HttpView | null,
): RuleExplanation {
  const layer: Layer = view === null ? "tcp" : "http";
  const context = testContext(compiled, policy);
  let dropped = false;
  /** Undefined where the field is not in force on this layer. */
  const holds = (field: Field): boolean | undefined => {
    const test = layer === "tcp" && isHttpOnly(field.attribute) ? null : compileField(field, context);
    dropped ||= test === null;
    return test?.test(peer, view);
  };
  const record = (fields: readonly Field[]): Record<string, boolean> => {
    const result: Record<string, boolean> = {};
    for (const field of fields) {
      const held = holds(field);
      if (held !== undefined) {
        result[field.field] = held;
      }
    }
    return result;
  };
  const fields = ruleFields(policy.rules[index]!);
  const from = fields.from.map(record);
  const to = fields.to.map(record);
  const when = policy.rules[index]!.when.map((condition) => ({
    key: condition.key,
    ...record(fields.when.filter((field) => field.condition === condition)),
  }));
  const isDropped = dropped && policy.action === "ALLOW";
  const all = (each: Readonly<Record<string, boolean>>): boolean => Object.values(each).every(Boolean);
  const matched =
    !isDropped &&
    (from.length === 0 || from.some(all)) &&
    (to.length === 0 || to.some(all)) &&
    when.every(({ key: _, ...held }) => all(held));
  return {
    policy: `${policy.namespace}/${policy.name}`,
    action: policy.action,
    rule: index,
    from,
    to,
    when,
    matched,
    ...(isDropped ? { dropped: true } : {}),
    ...(policy.dryRun ? { dryRun: true } : {}),
  };
}
