import { EveryhopError } from "../../../core/base/errors.ts";

/** SQLSTATE by its class (two characters) or whole. Source: PostgreSQL documentation, Appendix A. */
const HINTS: Readonly<Record<string, string>> = {
  "28": "check user and password (`passwordFile`, PGPASSWORD, the connection string) and the database's pg_hba.conf",
  "3D": "make it: `createdb NAME`, owned by the user of the connection string",
  "42501": "let the database belong to the user of the connection string, or grant it CREATE on the schema",
  "53100": "make room on the database's disk",
  XX: "look at the database's log; restore it from a backup if it is damaged",
};

/** Classes and states in which the same statement may succeed later, on this or on another connection. */
const AWAY: readonly string[] = ["08", "40", "53200", "53300", "53400", "55P03", "57", "25006", "25P03"];

const AWAY_HINT =
  "what is known already is served on, and nothing is signed until the database is back: is it running, and can this machine reach it?";

/**
 * An error of the driver as ours: uniqueness broken is `already-exists`, a reference `not-found`, a database that is away,
 * restarting or overloaded `unavailable`, all else `storage-failed`. INVARIANT: no message holds a value of a statement or the
 * password: PostgreSQL's `detail` has values, and is left out.
 */
export function postgresError(thrown: unknown, place: string): EveryhopError {
  if (thrown instanceof EveryhopError) {
    return thrown;
  }
  const { code = "", message, severity } = thrown as Error & { readonly code?: string; readonly severity?: string };
  // What the database itself said has a severity; the system's EPIPE only looks like a SQLSTATE.
  const state = severity === undefined ? null : code;
  if (state === "23505") {
    return new EveryhopError("already-exists", message);
  }
  if (state === "23503") {
    return new EveryhopError("not-found", "what it refers to is not there");
  }
  // Without a state it is the connection that failed: refused, reset, timed out, or a certificate that is not good.
  const certificate = /certificate|ssl|tls|altname/i.test(`${message} ${code}`) && state === null;
  if (certificate) {
    return new EveryhopError(
      "storage-failed",
      `the database ${place} and this server do not agree on TLS: ${message}`,
      {
        hint: "check `sslmode` and `sslrootcert` in the connection string",
      },
    );
  }
  if (state === null || AWAY.some((prefix) => state.startsWith(prefix))) {
    return new EveryhopError("unavailable", `the database ${place} is away: ${message || code}`, { hint: AWAY_HINT });
  }
  const hint = HINTS[state] ?? HINTS[state.slice(0, 2)];
  return new EveryhopError("storage-failed", `the database ${place}: ${message}`, hint === undefined ? {} : { hint });
}
