/** The store in an embedded SQLite database: the default, for one server. */
import { chmodSync } from "node:fs";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { Kysely, SqliteDialect, type SqliteStatement } from "kysely";
import { EveryhopError } from "../../core/base/errors.ts";
import { migrate } from "./migrations.ts";
import type { Tables } from "./schema.ts";
import { makeSqlStore } from "./sql-store.ts";
import type { Store } from "./store.ts";

/** Statements kept prepared; the text of each comes from our own queries, so there are few. */
const MAX_STATEMENTS = 200;

/**
 * Opens (or makes) the database in `file`. One process at a time has it: two servers on one folder would sign with one CA
 * and not know of each other. Errors: `storage-failed`, with the database closed again.
 */
export async function openSqliteStore(file: string, options: { readonly maxPages?: number } = {}): Promise<Store> {
  const database = openDatabase(file);
  if (options.maxPages !== undefined) {
    database.exec(`PRAGMA max_page_count = ${options.maxPages}`);
  }
  const db = new Kysely<Tables>({ dialect: new SqliteDialect({ database: adapter(database, file) }) });
  try {
    await migrate(db, "sqlite");
    return await makeSqlStore(db);
  } catch (error) {
    await db.destroy();
    throw error;
  }
}

function openDatabase(file: string): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { timeout: 0 });
    if (file !== ":memory:") {
      chmodSync(file, 0o600);
    }
    // RACE: the exclusive lock comes with the first write transaction and goes with the process, killed or not.
    database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; COMMIT");
    // INVARIANT: an intent to sign is on the disk before the signature exists. FULL syncs the log at each commit.
    database.exec("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF");
    const [check] = database.prepare("PRAGMA quick_check(1)").all();
    if (check?.quick_check !== "ok") {
      throw new EveryhopError("storage-failed", `the database \`${file}\` is damaged: ${check?.quick_check}`, {
        hint: RESTORE_HINT,
      });
    }
    return database;
  } catch (error) {
    database?.close();
    throw storageError(error, file);
  }
}

/** What kysely expects of a database, over node:sqlite. */
function adapter(database: DatabaseSync, file: string) {
  const statements = new Map<string, SqliteStatement>();
  return {
    close: () => {
      statements.clear();
      database.close();
    },
    prepare: (text: string): SqliteStatement => {
      if (text === "rollback" && !database.isTransaction) {
        // A full disk or a damaged page has rolled it back already; failing here would hide that error.
        return NOTHING;
      }
      const known = statements.get(text);
      if (known !== undefined) {
        return known;
      }
      const made = guarded(file, () => statement(database.prepare(text), file));
      if (statements.size < MAX_STATEMENTS) {
        statements.set(text, made);
      }
      return made;
    },
  };
}

const NOTHING: SqliteStatement = {
  reader: false,
  all: () => [],
  run: () => ({ changes: 0, lastInsertRowid: 0 }),
  iterate: () => [][Symbol.iterator](),
};

function statement(prepared: StatementSync, file: string): SqliteStatement {
  const values = (parameters: readonly unknown[]) => parameters as SQLInputValue[];
  return {
    reader: prepared.columns().length > 0,
    all: (parameters) => guarded(file, () => prepared.all(...values(parameters))),
    run: (parameters) => guarded(file, () => prepared.run(...values(parameters))),
    iterate: (parameters) => prepared.iterate(...values(parameters)),
  };
}

function guarded<T>(file: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw storageError(error, file);
  }
}

const RESTORE_HINT = "restore it from a backup, or start with an empty data folder (agents then have to join again)";

/** Primary result codes. Source: https://sqlite.org/rescode.html */
const HINTS: Readonly<Record<number, string>> = {
  5: "another server has it open: stop that one, or give this one a data folder of its own",
  8: "make the data folder writable for the user who runs the server",
  10: "look at the system's log for errors of the disk",
  11: RESTORE_HINT,
  13: "make room on the disk of the data folder",
  14: "create the data folder, or make it accessible for the user who runs the server",
  26: RESTORE_HINT,
};

const CONSTRAINT = 19;
const CONSTRAINT_FOREIGN_KEY = 787;

/** An error of node:sqlite as ours: uniqueness broken is `already-exists`, a reference `not-found`, all else `storage-failed`. */
function storageError(error: unknown, file: string): EveryhopError {
  if (error instanceof EveryhopError) {
    return error;
  }
  const { errcode, message, code } = error as Error & { errcode?: number; code?: string };
  const primary = (errcode ?? 0) & 0xff;
  if (errcode === CONSTRAINT_FOREIGN_KEY) {
    return new EveryhopError("not-found", "what it refers to is not there", { cause: error });
  }
  if (primary === CONSTRAINT) {
    return new EveryhopError("already-exists", message, { cause: error });
  }
  const hint = HINTS[primary] ?? (code === "ENOENT" || code === "EACCES" ? HINTS[14] : undefined);
  return new EveryhopError("storage-failed", `the database \`${file}\`: ${message}`, {
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}
