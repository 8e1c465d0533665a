/** Everything a person sees in a terminal goes through here: results on standard output, the rest on standard error. */
import { styleText } from "node:util";
import { type EveryhopError, formatIssue, type Issue, toEveryhopError } from "../core/base/errors.ts";
import type { Log } from "../io/log.ts";

const colour = (format: Parameters<typeof styleText>[0], text: string, stream: NodeJS.WriteStream): string =>
  styleText(format, text, { stream, validateStream: true });

/** One JSON document, or one line of a stream of them, on standard output. */
export function printJson(document: unknown): void {
  process.stdout.write(`${JSON.stringify(document)}\n`);
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Progress and diagnostics: standard error, so that `--json` stays clean. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Columns padded to their widest cell; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return rows.map((row, index) => (index === 0 ? colour("bold", line(row), process.stdout) : line(row))).join("\n");
}

const SEVERITY_COLOUR = { error: "red", warning: "yellow", info: "cyan" } as const;

export function formatIssueForPeople(issue: Issue): string {
  const hint = issue.hint === undefined ? "" : `\n  hint: ${issue.hint}`;
  return `${colour(SEVERITY_COLOUR[issue.severity], issue.severity, process.stderr)}: ${formatIssue(issue)}${hint}`;
}

/** What was found in the configuration of a process that starts all the same. */
export function logFindings(log: Log, findings: readonly Issue[]): void {
  for (const { severity, message, file, line, hint } of findings) {
    log[severity === "info" ? "info" : "warn"](message, { file, line, hint });
  }
}

/** An error as people read it: every issue, or the message, then the hint. */
export function formatError(error: EveryhopError): string {
  if (error.issues.length > 0) {
    return error.issues.map(formatIssueForPeople).join("\n");
  }
  const hint = error.hint === undefined ? "" : `\n  hint: ${error.hint}`;
  return `${colour("red", "error", process.stderr)}: ${error.message}${hint}`;
}

/** Reports a failure as the command was asked to (`--json` or for people) and says the exit code. */
export function reportFailure(thrown: unknown, json: boolean): number {
  const error = toEveryhopError(thrown);
  if (json) {
    const { code, message, hint, issues } = error;
    printJson({
      error: { code, message, ...(hint === undefined ? {} : { hint }), ...(issues.length === 0 ? {} : { issues }) },
    });
  } else {
    note(formatError(error));
  }
  if (error.code === "internal" && error.cause instanceof Error && process.env.EVERYHOP_DEBUG !== undefined) {
    note(error.cause.stack ?? "");
  }
  return error.exitCode;
}
