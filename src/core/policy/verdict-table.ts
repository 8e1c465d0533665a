/** Every verdict a workload's rules can give, made on first use and then kept: deciding allocates nothing. */
import { NONE, type RuleIndex } from "./rule-index.ts";
import type { CompiledRule, Layer } from "./rules.ts";
import type { Reason, Verdict } from "./verdict.ts";

interface Lists {
  readonly custom: RuleIndex;
  readonly deny: RuleIndex;
  readonly allow: RuleIndex;
  readonly audit: RuleIndex;
  readonly dryDeny: RuleIndex;
  readonly dryAllow: RuleIndex;
}

/** Outcomes of DENY and ALLOW; with the index of a rule they name one verdict. */
export const NO_POLICY = 0;
export const NO_ALLOW = 1;
export const ALLOWED = 2;
export const DENIED = 3;

const REASONS: readonly Reason[] = ["no-policy", "no-allow-matched", "allow-rule", "deny-rule"];

/** What the other rules add to a verdict, one after the other. */
export const ASKED = 0;
export const WOULD_DENY = 1;
export const WOULD_ALLOW = 2;
export const AUDITED = 3;
const STEPS = 4;

/** A verdict, and those that one more rule makes of it. */
export interface VerdictNode {
  readonly verdict: Verdict;
  readonly next: Map<number, VerdictNode>;
}

/** More combinations than this are not kept: memory stays bounded whatever requests come. */
const MAX_KEPT = 4_096;

export class VerdictTable {
  readonly #lists: Lists;
  readonly #layer: Layer;
  /** Per outcome, by rule. Made whole at once: a list that grows in leaps is slow to look into. */
  readonly #plain: (Verdict | undefined)[][];
  readonly #first: (VerdictNode | undefined)[][];
  #kept = 0;

  constructor(lists: Lists, layer: Layer) {
    this.#lists = lists;
    this.#layer = layer;
    const rules = [0, 0, lists.allow.rules.length, lists.deny.rules.length];
    this.#plain = rules.map((count) => new Array<Verdict | undefined>(count + 1).fill(undefined));
    this.#first = rules.map((count) => new Array<VerdictNode | undefined>(count + 1).fill(undefined));
  }

  /** HOT: the verdict where no audit, dry-run or CUSTOM policy plays a part. */
  plain(outcome: number, rule: number): Verdict {
    const row = this.#plain[outcome]!;
    const known = row[rule + 1];
    if (known !== undefined) {
      return known;
    }
    const made = this.#make(outcome, rule);
    row[rule + 1] = made;
    return made;
  }

  /** HOT: the same where one may play a part: `next` adds it. */
  first(outcome: number, rule: number): VerdictNode {
    const row = this.#first[outcome]!;
    const known = row[rule + 1];
    if (known !== undefined) {
      return known;
    }
    const made = { verdict: this.plain(outcome, rule), next: new Map<number, VerdictNode>() };
    row[rule + 1] = made;
    return made;
  }

  /** HOT: the verdict with what one more rule adds. */
  next(node: VerdictNode, step: number, rule: number): VerdictNode {
    const key = (rule + 1) * STEPS + step;
    const known = node.next.get(key);
    if (known !== undefined) {
      return known;
    }
    const made = { verdict: this.#add(node.verdict, step, rule), next: new Map<number, VerdictNode>() };
    if (this.#kept < MAX_KEPT) {
      this.#kept++;
      node.next.set(key, made);
    }
    return made;
  }

  #make(outcome: number, rule: number): Verdict {
    const allowed = outcome === NO_POLICY || outcome === ALLOWED;
    const list = outcome === ALLOWED ? this.#lists.allow : this.#lists.deny;
    const deciding = rule === NONE ? undefined : list.rules[rule];
    const decision = allowed ? "allow" : "deny";
    return {
      decision,
      status: this.#layer === "tcp" ? (allowed ? 0 : -1) : allowed ? 200 : 403,
      reason: REASONS[outcome]!,
      policy: deciding === undefined ? null : policyName(deciding),
      rule: deciding?.rule ?? null,
      audit: [],
      dryRun: { decision, policy: null },
      custom: null,
    };
  }

  #add(verdict: Verdict, step: number, rule: number): Verdict {
    if (step === ASKED) {
      const asking = this.#lists.custom.rules[rule]!;
      return {
        ...verdict,
        custom: { provider: asking.policy.provider ?? "", policy: policyName(asking), rule: asking.rule },
      };
    }
    if (step === AUDITED) {
      const name = policyName(this.#lists.audit.rules[rule]!);
      return verdict.audit.includes(name) ? verdict : { ...verdict, audit: [...verdict.audit, name] };
    }
    const list = step === WOULD_DENY ? this.#lists.dryDeny : this.#lists.dryAllow;
    const deciding = rule === NONE ? undefined : list.rules[rule];
    return {
      ...verdict,
      dryRun: {
        decision: step === WOULD_DENY ? "deny" : "allow",
        policy: deciding === undefined ? null : policyName(deciding),
      },
    };
  }
}

const policyName = (rule: CompiledRule): string => `${rule.policy.namespace}/${rule.policy.name}`;
