/** docs/errors.md: the table of error codes. */
import { CODES } from "../src/core/base/codes.ts";
import { markdownTable } from "./markdown.ts";

/** Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
const GRPC = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

export function errorsDocument(): string {
  const rows = Object.entries(CODES).map(([code, row]) => [
    `\`${code}\``,
    row.summary,
    `${row.exit}`,
    `${row.http}`,
    GRPC[row.grpc] ?? `${row.grpc}`,
    row.retry ? "yes" : "no",
  ]);
  return `# Errors

Every failure has one of these codes. A code is stable: scripts may match it. With \`--json\` a command prints
\`{"error":{"code":"…","message":"…","hint":"…","issues":[…]}}\`; for people the message says what and where, the hint the likely cause and the next step.

${markdownTable(["code", "what it means", "exit code", "HTTP", "gRPC", "the same call may succeed later"], rows)}

Exit code 0 is done, 1 is the answer "no" (a denial, a failed policy test), 2 a wrong command line or configuration.
`;
}
