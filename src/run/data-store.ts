/** The server's database: its block in the configuration, and the store that is opened by it. */
import { join, resolve } from "node:path";
import type { Clock } from "../core/base/clock.ts";
import { type EveryhopError, toEveryhopError } from "../core/base/errors.ts";
import { object, oneOf, optional, refined, required, string } from "../core/base/validate.ts";
import type { Log } from "../io/log.ts";
import { lockFolder } from "../io/store/folder-lock.ts";
import { type ConnectOptions, readConnection } from "../io/store/postgres/connection.ts";
import { parseConnectionString } from "../io/store/postgres/connection-string.ts";
import { openPostgresStore } from "../io/store/postgres/postgres.ts";
import { openSqliteStore } from "../io/store/sqlite.ts";
import type { Store } from "../io/store/store.ts";

export type DataStoreConfig =
  /** `server.db` in the data folder. */
  | { readonly kind: "sqlite" }
  | { readonly kind: "postgres"; readonly connection: string; readonly passwordFile: string | null };

export function dataStoreShape() {
  const connection = refined(string({ what: "a connection string" }), (text, at) => {
    const parsed = parseConnectionString(text);
    return parsed.ok ? text : at.fault(parsed.message, parsed.hint);
  });
  const shape = object({
    kind: required(oneOf("sqlite", "postgres")),
    connection: optional(connection),
    passwordFile: optional(string({ what: "a file" })),
  });
  return refined(shape, (given, at) => {
    if (given.kind === "postgres" && !("connection" in given)) {
      return at.fault("`connection` is missing", "write it as `postgres://USER@HOST/DATABASE?sslmode=verify-full`");
    }
    const stray = (["connection", "passwordFile"] as const).find((key) => given[key] !== undefined);
    if (given.kind === "sqlite" && stray !== undefined) {
      return at.into(stray).fault(`\`${stray}\` is for \`kind: postgres\``);
    }
    return given;
  });
}

type Given = ReturnType<ReturnType<typeof dataStoreShape>["read"]>;

/** `passwordFile` is relative to `dir`. */
export function dataStoreConfig(given: Given, dir: string): DataStoreConfig {
  if (given?.kind !== "postgres") {
    return { kind: "sqlite" };
  }
  const { connection = "", passwordFile } = given;
  return { kind: "postgres", connection, passwordFile: passwordFile === undefined ? null : resolve(dir, passwordFile) };
}

/** What is wrong with the files that a connection names; null where all can be read. Nothing is connected to. */
export function connectionFault(config: DataStoreConfig): EveryhopError | null {
  try {
    if (config.kind === "postgres") {
      readConnection(connectOptions(config));
    }
    return null;
  } catch (error) {
    return toEveryhopError(error);
  }
}

function connectOptions({ connection, passwordFile }: DataStoreConfig & { readonly kind: "postgres" }): ConnectOptions {
  return { connection, ...(passwordFile === null ? {} : { passwordFile }) };
}

export interface OpenDataStore {
  readonly store: Store;
  /** Why the database cannot be reached now, or null. */
  readonly problem: () => string | null;
  close(): Promise<void>;
}

/** INVARIANT: one server at a time works in `dataDir`. Errors: as `openSqliteStore`, `openPostgresStore` and `lockFolder`. */
export async function openDataStore(
  config: DataStoreConfig,
  dataDir: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<OpenDataStore> {
  if (config.kind === "sqlite") {
    const store = await openSqliteStore(join(dataDir, "server.db"));
    return { store, problem: () => null, close: () => store.close() };
  }
  const unlock = lockFolder(dataDir);
  let problem: string | null = null;
  const onState = (error: Error | null): void => {
    problem = error?.message ?? null;
    if (error === null) {
      log.info("the database is back");
    } else {
      log.error("the database is away: what is known is served on, nothing is changed or signed", { error });
    }
  };
  try {
    const store = await openPostgresStore({ ...connectOptions(config), clock, onState });
    const close = async (): Promise<void> => {
      await store.close();
      unlock();
    };
    return { store, problem: () => problem, close };
  } catch (error) {
    unlock();
    throw error;
  }
}
