import { CODES, type Code } from "./codes.ts";

/** Where in a file something is wrong; lines and columns count from 1. */
export interface Place {
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
  /** Path inside the document, as `spec.rules[0].to[0].operation.methods`. */
  readonly path?: string;
}

export type Severity = "error" | "warning" | "info";

/** One thing found in a configuration or resource; the JSON form of `policy check`, `server --check`, `status`. */
export interface Issue extends Place {
  readonly code: string;
  readonly severity: Severity;
  readonly message: string;
  readonly hint?: string;
}

interface ErrorOptions {
  readonly hint?: string;
  readonly cause?: unknown;
  readonly issues?: readonly Issue[];
}

/** The one error class. Messages: lower case, user input in backticks; the next step is in `hint`. */
export class EveryhopError extends Error {
  override readonly name = "EveryhopError";
  readonly code: Code;
  readonly hint: string | undefined;
  /** All that is wrong, where a parser collected more than one thing. */
  readonly issues: readonly Issue[];

  constructor(code: Code, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.issues = options.issues ?? [];
  }

  get exitCode(): number {
    return CODES[this.code].exit;
  }
}

/** Any thrown value as an EveryhopError; what is not one of ours is `internal` with its message kept. */
export function toEveryhopError(thrown: unknown): EveryhopError {
  if (thrown instanceof EveryhopError) {
    return thrown;
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new EveryhopError("internal", message, { cause: thrown });
}

/** An error that carries all issues of a configuration; its message is the first one, with its place. */
export function configError(issues: readonly Issue[]): EveryhopError {
  const first = issues.find((issue) => issue.severity === "error") ?? issues[0];
  if (first === undefined) {
    return new EveryhopError("internal", "configError without an issue");
  }
  const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : "";
  const options = first.hint === undefined ? { issues } : { issues, hint: first.hint };
  return new EveryhopError("config-invalid", `${formatIssue(first)}${more}`, options);
}

/** `file:line:column: path: message`, with the parts that are known. */
export function formatIssue(issue: Issue): string {
  const position = [issue.file, issue.line, issue.column].filter((part) => part !== undefined).join(":");
  return [position, issue.path, issue.message].filter((part) => part !== undefined && part !== "").join(": ");
}
