/** The results of PolicyTests as TAP. SPEC: Test Anything Protocol 14. */
import type { CaseResult } from "./run.ts";

export function tap(results: readonly CaseResult[]): string {
  return [
    "TAP version 14",
    `1..${results.length}`,
    ...results.flatMap((result, index) => caseLines(result, index + 1)),
    "",
  ].join("\n");
}

function caseLines({ ok, case: given, test, differences, answer }: CaseResult, number: number): string[] {
  const line = `${ok ? "ok" : "not ok"} ${number} - ${escapeTap(`${test.name}: ${given.name}`)}`;
  if (ok) {
    return [line];
  }
  const { file, line: at, column } = given.place;
  // JSON is YAML: every value is written as JSON, so that no text can end the block.
  const entry = (name: string, value: unknown): string => `  ${name}: ${JSON.stringify(value ?? null)}`;
  return [
    line,
    "  ---",
    entry("message", differences.map(({ field }) => `\`${field}\` differs`).join(", ")),
    entry("severity", "fail"),
    entry("at", { file, line: at, column }),
    entry("expected", Object.fromEntries(differences.map(({ field, expected }) => [field, expected]))),
    entry("actual", Object.fromEntries(differences.map(({ field, actual }) => [field, actual]))),
    entry("nearestMiss", answer.nearestMiss),
    "  ...",
  ];
}

const escapeTap = (text: string): string =>
  text
    .replaceAll("\\", "\\\\")
    .replaceAll("#", "\\#")
    .replace(/\p{Cc}+/gu, " ");
