/** The mutation score: how many wrong policies the tests notice. */
import type { Place } from "../../base/errors.ts";
import { type Answer, Decider } from "../decide.ts";
import type { Resource } from "../resources.ts";
import { selects, type WorkloadScope } from "../select.ts";
import { share } from "./coverage.ts";
import { equivalence } from "./equivalent.ts";
import { type Mutant, type MutantKind, mutantsOf } from "./mutants.ts";
import type { TestCase } from "./policy-test.ts";
import { type CaseResult, isExpected, type RunOptions, type Suite } from "./run.ts";

/** `unreached`: survived, for no test asks a workload that the policy selects. */
export type MutantState = "killed" | "survived" | "unreached" | "equivalent" | "not-run";

export interface MutantResult extends Place {
  readonly policy: string;
  readonly resourceKind: Resource["kind"];
  readonly rule: number | null;
  readonly kind: MutantKind;
  readonly change: string;
  readonly state: MutantState;
  /** The first test that noticed; or why nothing can change. */
  readonly by?: string;
}

export interface MutationReport {
  readonly total: number;
  readonly killed: number;
  readonly survived: number;
  readonly equivalent: number;
  /** Left when time was up. */
  readonly notRun: number;
  /** Percent killed of those that were run and are not equivalent. */
  readonly score: number;
  readonly mutants: readonly MutantResult[];
}

export interface MutationOptions extends RunOptions {
  /** Time is up. */
  readonly isOver: () => boolean;
  readonly progress: (done: number, total: number) => void;
}

interface Run {
  readonly suite: Suite;
  readonly results: readonly CaseResult[];
}

/** Mutates every suite's policies; one policy that several suites use is noticed if one of them notices. */
export function mutate(runs: readonly Run[], options: MutationOptions): MutationReport {
  const all = runs.map((run) => ({ run, mutants: run.suite.resources.flatMap(mutantsOf) }));
  const total = all.reduce((sum, { mutants }) => sum + mutants.length, 0);
  const found = new Map<string, MutantResult>();
  let done = 0;
  for (const { run, mutants } of all) {
    const trial = new Trial(run, options);
    for (const mutant of mutants) {
      options.progress(done++, total);
      const result = trial.try(mutant);
      const key = JSON.stringify([result.file, result.line, result.column, result.policy, result.rule, result.change]);
      const before = found.get(key);
      found.set(key, before === undefined || isBetter(result, before) ? result : before);
    }
  }
  return report([...found.values()]);
}

const RANK: readonly MutantState[] = ["not-run", "unreached", "survived", "equivalent", "killed"];

const isBetter = (result: MutantResult, before: MutantResult): boolean =>
  RANK.indexOf(result.state) > RANK.indexOf(before.state);

function report(mutants: readonly MutantResult[]): MutationReport {
  const count = (...states: readonly MutantState[]): number =>
    mutants.filter(({ state }) => states.includes(state)).length;
  const judged = mutants.filter(({ state }) => state !== "equivalent" && state !== "not-run");
  return {
    total: mutants.length,
    killed: count("killed"),
    survived: count("survived", "unreached"),
    equivalent: count("equivalent"),
    notRun: count("not-run"),
    score: share(judged, ({ state }) => state === "killed").percent,
    mutants,
  };
}

/** One suite under mutation: only the tests at workloads that the changed policy selects are asked again. */
class Trial {
  readonly #suite: Suite;
  readonly #options: MutationOptions;
  readonly #passing: readonly CaseResult[];
  readonly #workloads: readonly WorkloadScope[];

  constructor({ suite, results }: Run, options: MutationOptions) {
    this.#suite = suite;
    this.#options = options;
    this.#passing = results.filter(({ ok }) => ok);
    const known = new Map(results.map(({ case: each }) => [workloadKey(each), workloadOf(each)]));
    this.#workloads = [...known.values()];
  }

  try(mutant: Mutant): MutantResult {
    const { resource, rule, kind, change, path } = mutant;
    return {
      policy: `${resource.namespace}/${resource.name}`,
      resourceKind: resource.kind,
      rule,
      kind,
      change,
      ...this.#suite.locate(resource, path),
      ...this.#judge(mutant),
    };
  }

  #judge(mutant: Mutant): { readonly state: MutantState; readonly by?: string } {
    if (this.#options.isOver()) {
      return { state: "not-run" };
    }
    const { resources, mesh } = this.#suite;
    const { rootNamespace } = mesh.meshConfig;
    const reached = this.#passing.filter(({ case: each }) => selects(mutant.resource, workloadOf(each), rootNamespace));
    const mutated = resources.flatMap((each) => (each === mutant.resource ? mutant.mutated : [each]));
    const decider = new Decider(mutated, mesh, this.#options);
    for (const { case: each, test } of reached) {
      if (!isExpected(each.expect, decide(decider, each))) {
        return { state: "killed", by: `${test.name}: ${each.name}` };
      }
    }
    const because = equivalence(mutant, { resources, mesh, workloads: this.#workloads });
    if (because !== null) {
      return { state: "equivalent", by: because };
    }
    return { state: reached.length === 0 ? "unreached" : "survived" };
  }
}

const decide = (decider: Decider, { request }: TestCase): Answer => decider.decide(request);

const workloadOf = ({ request: { destination } }: TestCase): WorkloadScope => ({
  namespace: destination.namespace,
  labels: destination.labels,
});

function workloadKey(each: TestCase): string {
  const { namespace, labels } = workloadOf(each);
  return JSON.stringify([namespace, Object.entries(labels).sort()]);
}
