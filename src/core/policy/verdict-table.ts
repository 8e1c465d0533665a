/** Every verdict a workload's rules can give, made on first use and then kept. */
import type { CompiledRule, Layer } from "./rules.ts";
import type { Reason, Verdict } from "./verdict.ts";

interface Lists {
  readonly custom: readonly CompiledRule[];
  readonly deny: readonly CompiledRule[];
  readonly allow: readonly CompiledRule[];
  readonly audit: readonly CompiledRule[];
  readonly dryDeny: readonly CompiledRule[];
  readonly dryAllow: readonly CompiledRule[];
}

/** Outcomes of a list of rules: the rule that matched, or one of these. */
export const NONE = -1;

/** Kinds of outcome; with the index of a rule they name one verdict. */
export const NO_POLICY = 0;
export const NO_ALLOW = 1;
export const ALLOWED = 2;
export const DENIED = 3;

/** More combinations with audit, dry-run and CUSTOM rules than this are not kept: memory stays bounded. */
const MAX_KEPT = 4_096;

export class VerdictTable {
  readonly #lists: Lists;
  readonly #layer: Layer;
  readonly #plain: (Verdict | undefined)[][] = [[], [], [], []];
  readonly #combined = new Map<string, Verdict>();

  constructor(lists: Lists, layer: Layer) {
    this.#lists = lists;
    this.#layer = layer;
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

  /** The same with what the other policies said; `dryPolicy` is null where none of them changes anything. */
  combined(
    outcome: number,
    rule: number,
    custom: number,
    audits: readonly number[],
    dry: { readonly denied: boolean; readonly rule: CompiledRule | null } | null,
  ): Verdict {
    const key = `${outcome} ${rule} ${custom} ${audits.join(",")} ${dry === null ? "" : `${dry.denied} ${dry.rule?.id}`}`;
    const known = this.#combined.get(key);
    if (known !== undefined) {
      return known;
    }
    const base = this.plain(outcome, rule);
    const ask = custom === NONE ? undefined : this.#lists.custom[custom];
    const made: Verdict = {
      ...base,
      audit: [...new Set(audits.map((index) => policyName(this.#lists.audit[index]!)))],
      dryRun:
        dry === null
          ? base.dryRun
          : { decision: dry.denied ? "deny" : "allow", policy: dry.rule === null ? null : policyName(dry.rule) },
      custom:
        ask === undefined ? null : { provider: ask.policy.provider ?? "", policy: policyName(ask), rule: ask.rule },
    };
    if (this.#combined.size < MAX_KEPT) {
      this.#combined.set(key, made);
    }
    return made;
  }

  #make(outcome: number, rule: number): Verdict {
    const allowed = outcome === NO_POLICY || outcome === ALLOWED;
    const list = outcome === ALLOWED ? this.#lists.allow : this.#lists.deny;
    const deciding = rule === NONE ? undefined : list[rule];
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
}

const REASONS: readonly Reason[] = ["no-policy", "no-allow-matched", "allow-rule", "deny-rule"];

const policyName = (rule: CompiledRule): string => `${rule.policy.namespace}/${rule.policy.name}`;
