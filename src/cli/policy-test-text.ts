/** What `policy test` says: for people, and as one JSON document. */
import { styleText } from "node:util";
import type { Place } from "../core/base/errors.ts";
import type { Coverage, FieldCoverage, RuleCoverage, Share } from "../core/policy/testing/coverage.ts";
import type { MutantResult, MutationReport } from "../core/policy/testing/mutation.ts";
import type { CaseResult } from "../core/policy/testing/run.ts";
import { failureLines } from "../core/policy/testing/text.ts";
import type { JwksFlags } from "./policy-jwks.ts";
import type { MeshFlags } from "./policy-mesh.ts";

export interface TestFlags extends MeshFlags, JwksFlags {
  readonly json?: boolean;
  readonly format: "text" | "junit" | "tap";
  readonly junit?: string;
  readonly filter?: string;
  readonly coverage?: boolean;
  readonly minCoverage?: number;
  readonly minFieldCoverage?: number;
  readonly mutate?: boolean;
  readonly minMutationScore?: number;
  readonly mutateTimeout: number;
}

export interface TestRun {
  readonly results: readonly CaseResult[];
  readonly coverage: Coverage;
  readonly mutation: MutationReport | null;
}

/** What was asked for and not reached, one line each. */
export function shortfalls({ coverage, mutation }: TestRun, flags: TestFlags): string[] {
  const below = (what: string, percent: number, wanted: number | undefined): string[] =>
    wanted === undefined || percent >= wanted ? [] : [`${what} is ${percent} %, less than ${wanted} %`];
  return [
    ...below("rule coverage", coverage.rules.percent, flags.minCoverage),
    ...below("field coverage", coverage.fields.percent, flags.minFieldCoverage),
    ...(mutation === null ? [] : below("the mutation score", mutation.score, flags.minMutationScore)),
    ...(mutation !== null && flags.minMutationScore !== undefined && mutation.notRun > 0
      ? [`${mutation.notRun} mutants were not run in time; give --mutate-timeout more`]
      : []),
  ];
}

export function resultDocument(run: TestRun, missing: readonly string[]): unknown {
  const failed = run.results.filter(({ ok }) => !ok).length;
  const { byRule, ...totals } = run.coverage;
  return {
    ok: failed === 0 && missing.length === 0,
    tests: run.results.length,
    passed: run.results.length - failed,
    failed,
    shortfalls: missing,
    results: run.results.map(caseDocument),
    coverage: { ...totals, byRule },
    ...(run.mutation === null ? {} : { mutation: run.mutation }),
  };
}

function caseDocument({ test, case: given, ok, differences, answer }: CaseResult): unknown {
  const { explain, nearestMiss, changes, ...actual } = answer;
  return {
    suite: test.name,
    name: given.name,
    ok,
    ...placeOf(given.place),
    expected: given.expect,
    actual,
    differences,
    ...(explain === undefined ? {} : { explain }),
    ...(nearestMiss === undefined ? {} : { nearestMiss, changes }),
  };
}

const placeOf = ({ file, line, column }: Place): Place => ({
  ...(file === undefined ? {} : { file }),
  ...(line === undefined ? {} : { line }),
  ...(column === undefined ? {} : { column }),
});

export function resultText(
  { results, coverage, mutation }: TestRun,
  flags: TestFlags,
  missing: readonly string[],
): string {
  const failed = results.filter(({ ok }) => !ok).length;
  const { rules, fields, values } = coverage;
  return [
    ...results.flatMap(caseLines),
    "",
    `${results.length} tests, ${results.length - failed} passed, ${failed} failed`,
    `coverage: rules ${shareText(rules)}, fields ${shareText(fields)}, values ${shareText(values)}`,
    ...(flags.coverage === true ? coverage.byRule.flatMap(ruleLines) : coverage.byRule.flatMap(unmetLines)),
    ...(mutation === null ? [] : mutationLines(mutation)),
    ...missing.map((line) => red(line)),
  ].join("\n");
}

const red = (text: string): string => styleText("red", text, { stream: process.stdout });
const green = (text: string): string => styleText("green", text, { stream: process.stdout });

const shareText = ({ covered, total, percent }: Share): string => `${covered} of ${total} (${percent} %)`;

function caseLines(result: CaseResult): string[] {
  const name = `${result.test.name}: ${result.case.name}`;
  return result.ok
    ? [`${green("ok")}    ${name}`]
    : [`${red("FAIL")}  ${name}`, ...failureLines(result).map((line) => `        ${line}`)];
}

const where = ({ file, line, column }: Place): string =>
  [file, line, column].filter((part) => part !== undefined).join(":");

const ruleName = ({ policy, action, rule }: RuleCoverage): string => `${action} ${policy} rule ${rule}`;

/** What no test met: of a rule that never matched all is said with one line. */
function unmetLines(rule: RuleCoverage): string[] {
  if (rule.matched === 0) {
    return [`  never matched: ${ruleName(rule)}  ${where(rule)}`];
  }
  return rule.fields.flatMap((field) =>
    field.values
      .filter(({ matched }) => matched === 0)
      .map((value) => `  never met: ${fieldName(field)} \`${value.value}\` of ${ruleName(rule)}  ${where(value)}`),
  );
}

const fieldName = ({ field, key }: FieldCoverage): string => (key === undefined ? field : `${key} ${field}`);

function ruleLines(rule: RuleCoverage): string[] {
  return [
    `  ${ruleName(rule)}: matched ${rule.matched}, decided ${rule.decided}  ${where(rule)}`,
    ...rule.fields.flatMap((field) => [
      `    ${fieldName(field)}: held ${field.held}, failed ${field.failed}`,
      ...field.values.map(({ value, matched }) => `      ${String(matched).padStart(4)}  ${value}`),
    ]),
  ];
}

function mutationLines({ mutants, killed, survived, equivalent, notRun, score }: MutationReport): string[] {
  const survivors = mutants.filter(({ state }) => state === "survived" || state === "unreached");
  const counts = `${killed} noticed, ${survived} not noticed, ${equivalent} change nothing`;
  return [
    `mutants: ${counts}${notRun === 0 ? "" : `, ${notRun} not run in time`}; score ${score} %`,
    ...survivors.map(survivorLine),
  ];
}

function survivorLine(mutant: MutantResult): string {
  const rule = mutant.rule === null ? "" : ` rule ${mutant.rule}`;
  const reached = mutant.state === "unreached" ? " (no test asks a workload it selects)" : "";
  return `  not noticed: ${mutant.policy}${rule}: ${mutant.change}${reached}  ${where(mutant)}`;
}
