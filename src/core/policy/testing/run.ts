/** Runs PolicyTests: each request is decided on the path of `policy decide`, and the answer compared with what was expected. */
import type { Place } from "../../base/errors.ts";
import type { Path } from "../../base/yaml.ts";
import type { KeySource } from "../authenticate.ts";
import type { MeshScope } from "../compile.ts";
import { type Answer, Decider } from "../decide.ts";
import type { Resource } from "../resources.ts";
import type { Expectation, PolicyTest, TestCase } from "./policy-test.ts";

/** PolicyTests that are about one set of resources. */
export interface Suite {
  readonly tests: readonly PolicyTest[];
  readonly resources: readonly Resource[];
  readonly mesh: MeshScope;
  readonly locate: (resource: Resource, path: Path) => Place;
}

export interface RunOptions {
  /** When tokens are looked at. */
  readonly now: () => number;
  readonly keysOf?: KeySource;
}

export interface Difference {
  /** As in `expect`: `decision`, `dryRun.policy`. */
  readonly field: string;
  readonly expected: unknown;
  readonly actual: unknown;
}

export interface CaseResult {
  readonly test: PolicyTest;
  readonly case: TestCase;
  readonly answer: Answer;
  readonly ok: boolean;
  readonly differences: readonly Difference[];
}

export function runSuite(suite: Suite, options: RunOptions): readonly CaseResult[] {
  const decider = new Decider(suite.resources, suite.mesh, options);
  return suite.tests.flatMap((test) => test.cases.map((each) => runCase(decider, test, each)));
}

function runCase(decider: Decider, test: PolicyTest, given: TestCase): CaseResult {
  const answer = decider.decide(given.request);
  const differences = differencesOf(given.expect, answer);
  const ok = differences.length === 0;
  // Explaining is for the few that fail.
  return { test, case: given, ok, differences, answer: ok ? answer : decider.decide(given.request, { explain: true }) };
}

/** Whether an answer is what was expected; for mutants, which only want to know that. */
export const isExpected = (expect: Expectation, answer: Answer): boolean => differencesOf(expect, answer).length === 0;

function differencesOf(expect: Expectation, answer: Answer): Difference[] {
  const differences: Difference[] = [];
  const compare = (field: string, expected: unknown, actual: unknown): void => {
    if (expected !== undefined && JSON.stringify(expected) !== JSON.stringify(actual)) {
      differences.push({ field, expected, actual: actual ?? null });
    }
  };
  const { decision, status, reason, policy, rule, path, audit, dryRun } = expect;
  compare("decision", decision, answer.decision);
  compare("status", status, answer.status);
  compare("reason", reason, answer.reason);
  compare("policy", policy, answer.policy);
  compare("rule", rule, answer.rule);
  compare("path", path, answer.path);
  compare("audit", audit === undefined ? undefined : [...audit].sort(), [...answer.audit].sort());
  compare("dryRun.decision", dryRun?.decision, answer.dryRun.decision);
  compare("dryRun.policy", dryRun?.policy, answer.dryRun.policy);
  return differences;
}
