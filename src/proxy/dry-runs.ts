/** What the dry-run policies of a workload would have changed: counted here, told to the control plane now and then. */

import type { Verdict } from "./enforce.ts";
import type { Party, Telemetry } from "./telemetry.ts";

export interface DryRunCount {
  readonly enforced: "allow" | "deny";
  readonly would: "allow" | "deny";
  /** The dry-run policy that makes it so; null where it is only that none of them allows it, or that nothing changes. */
  readonly policy: string | null;
  count: number;
}

/** Verdicts are made once per outcome: so many outcomes of one set of policies are counted apart. */
const MAX_OUTCOMES = 1_000;

export class DryRuns {
  readonly #telemetry: Telemetry;
  readonly #counts = new Map<string, DryRunCount>();
  #byVerdict = new WeakMap<Verdict, DryRunCount>();
  #listener: (() => void) | null = null;

  constructor(telemetry: Telemetry) {
    this.#telemetry = telemetry;
  }

  /** HOT. */
  add(verdict: Verdict, source: Party | null, destination: Party, protocol: "http" | "tcp"): void {
    const count = this.#byVerdict.get(verdict) ?? this.#find(verdict);
    count.count++;
    this.#telemetry.dryRun(source, destination, protocol, count).value++;
    this.#listener?.();
  }

  #find(verdict: Verdict): DryRunCount {
    const { decision, dryRun } = verdict;
    const key = `${decision} ${dryRun.decision} ${dryRun.policy ?? ""}`;
    const known = this.#counts.get(key);
    const made = known ?? { enforced: decision, would: dryRun.decision, policy: dryRun.policy, count: 0 };
    if (known === undefined && this.#counts.size < MAX_OUTCOMES) {
      this.#counts.set(key, made);
    }
    this.#byVerdict.set(verdict, made);
    return made;
  }

  get counts(): readonly DryRunCount[] {
    return [...this.#counts.values()];
  }

  /** Other policies: what the old ones would have done is no longer of interest. */
  reset(): void {
    this.#counts.clear();
    this.#byVerdict = new WeakMap();
    this.#listener?.();
  }

  /** Calls `listener` whenever something was counted. */
  listen(listener: (() => void) | null): void {
    this.#listener = listener;
  }
}
