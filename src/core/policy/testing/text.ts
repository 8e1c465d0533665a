/** A failed PolicyTest in words: what differed, which rules were looked at, and what would have let the request in. */
import type { RuleExplanation } from "../explain.ts";
import type { CaseResult, Difference } from "./run.ts";

const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

export const differenceText = ({ field, expected, actual }: Difference): string =>
  `${field}: expected ${shown(expected)}, got ${shown(actual)}`;

/** Lines without indentation of their own; the first says where. */
export function failureLines({ case: given, differences, answer }: CaseResult): string[] {
  const { decision, status, reason, policy, rule } = answer;
  const by = policy === null ? "" : ` by ${policy}${rule === null ? "" : ` rule ${rule}`}`;
  const { file, line, column } = given.place;
  return [
    `at ${[file, line, column].filter((part) => part !== undefined).join(":")}`,
    ...differences.map(differenceText),
    `answered: ${decision} ${status} ${reason}${by}`,
    ...(answer.explain ?? []).map(ruleLine),
    ...(answer.changes ?? []).flatMap(({ would, policy: changed, patch }) => [
      `would ${would} (${changed})`,
      `patch: ${JSON.stringify(patch)}`,
    ]),
  ];
}

/** `ALLOW production/pay rule 0: from principals yes; to methods no, paths yes`. */
function ruleLine({ policy, action, rule, from, to, when, matched, dropped }: RuleExplanation): string {
  const fields = (each: Readonly<Record<string, boolean>>): string =>
    Object.entries(each)
      .map(([name, held]) => `${name} ${held ? "yes" : "no"}`)
      .join(", ");
  const parts = [
    ...(from.length === 0 ? [] : [`from ${from.map(fields).join(" or ")}`]),
    ...(to.length === 0 ? [] : [`to ${to.map(fields).join(" or ")}`]),
    ...when.map(({ key, ...held }) => `when ${key} ${fields(held)}`),
  ];
  const verdict = dropped === true ? "not in force on TCP" : matched ? "matched" : "not matched";
  return `${action} ${policy} rule ${rule} ${verdict}${parts.length === 0 ? "" : `: ${parts.join("; ")}`}`;
}
