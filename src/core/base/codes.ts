/**
 * The table of error codes. HTTP status, gRPC status, exit code and retry derive from it, and so does docs/errors.
 * A code is stable: scripts match it. The message says what and where; the hint says the likely cause and next step.
 */
interface CodeRow {
  /** gRPC status number. Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
  readonly grpc: number;
  readonly http: number;
  /** Exit code of a command that ends with this error. */
  readonly exit: number;
  /** Whether the same call may succeed later. */
  readonly retry: boolean;
  readonly summary: string;
}

const row = (grpc: number, http: number, exit: number, retry: boolean, summary: string): CodeRow => ({
  grpc,
  http,
  exit,
  retry,
  summary,
});

export const CODES = {
  usage: row(3, 400, 2, false, "the command line is wrong"),
  "config-invalid": row(3, 400, 2, false, "a configuration file or resource is not valid"),
  "file-missing": row(5, 404, 2, false, "a file that is needed is not there or cannot be read"),
  "invalid-argument": row(3, 400, 2, false, "a request's argument is not valid"),
  "not-found": row(5, 404, 2, false, "what was asked for does not exist"),
  "already-exists": row(6, 409, 2, false, "what should be made exists already"),
  "permission-denied": row(7, 403, 3, false, "the caller may not do this"),
  unauthenticated: row(16, 401, 3, false, "the caller did not prove who it is"),
  "failed-precondition": row(9, 412, 3, false, "the system is not in a state in which this can be done"),
  unavailable: row(14, 503, 4, true, "the other side cannot be reached or is not ready"),
  "resource-exhausted": row(8, 429, 4, true, "a limit was reached"),
  "port-in-use": row(14, 503, 2, false, "an address to listen on is taken"),
  "service-failed": row(14, 503, 5, false, "a service of the mesh exited or did not start listening"),
  "storage-failed": row(13, 500, 6, false, "the disk or the database refused a read or a write"),
  "not-supported": row(12, 501, 2, false, "this platform or user cannot do this"),
  internal: row(13, 500, 70, false, "a bug in everyhop"),
} as const satisfies Record<string, CodeRow>;

export type Code = keyof typeof CODES;
