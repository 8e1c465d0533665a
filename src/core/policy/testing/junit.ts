/** The results of PolicyTests as JUnit XML, as CI systems read it: a suite per PolicyTest, a case per request. */
import type { CaseResult } from "./run.ts";
import { differenceText } from "./text.ts";

export function junit(results: readonly CaseResult[]): string {
  const failures = results.filter(({ ok }) => !ok).length;
  const suites = Map.groupBy(results, ({ test }) => test);
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="everyhop policy test" tests="${results.length}" failures="${failures}" errors="0" skipped="0" time="0">`,
    ...[...suites.values()].map(suiteXml),
    "</testsuites>",
    "",
  ].join("\n");
}

function suiteXml(results: readonly CaseResult[]): string {
  const test = results[0]!.test;
  const failures = results.filter(({ ok }) => !ok).length;
  const attributes = attributesXml({ name: test.name, file: test.place.file });
  return [
    `  <testsuite ${attributes} tests="${results.length}" failures="${failures}" errors="0" skipped="0" time="0">`,
    ...results.map(caseXml),
    "  </testsuite>",
  ].join("\n");
}

function caseXml({ case: given, test, ok, differences, answer }: CaseResult): string {
  const { file, line } = given.place;
  const attributes = attributesXml({ name: given.name, classname: test.name, file, line: line?.toString() });
  if (ok) {
    return `    <testcase ${attributes} time="0"/>`;
  }
  const said = differences.map(differenceText);
  const where = [file, line, given.place.column].filter((part) => part !== undefined).join(":");
  const miss = answer.nearestMiss ? [`would ${answer.nearestMiss.would} (${answer.nearestMiss.policy})`] : [];
  const text = escapeXml([where, ...said, ...miss].join("\n"));
  return [
    `    <testcase ${attributes} time="0">`,
    `      <failure type="decision" message="${escapeXml(said.join("; "))}">${text}</failure>`,
    "    </testcase>",
  ].join("\n");
}

function attributesXml(attributes: Readonly<Record<string, string | undefined>>): string {
  return Object.entries(attributes)
    .flatMap(([name, value]) => (value === undefined ? [] : [`${name}="${escapeXml(value)}"`]))
    .join(" ");
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};

/** SPEC: XML 1.0 §2.2: what is no character there has no escape either. */
function escapeXml(text: string): string {
  return (
    text
      .toWellFormed()
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
      .replace(/[&<>"']/g, (char) => ENTITIES[char] ?? char)
  );
}
