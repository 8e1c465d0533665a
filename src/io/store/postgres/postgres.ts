/** The store in PostgreSQL: for several replicas of the server, which all write and hear of each other's writes. */
import { Kysely, PostgresDialect, sql } from "kysely";
import { backoffMs } from "../../../core/base/backoff.ts";
import type { Clock } from "../../../core/base/clock.ts";
import { toEveryhopError } from "../../../core/base/errors.ts";
import { migrate } from "../migrations.ts";
import { CHANGES, counter, type Tables } from "../schema.ts";
import { makeSqlStore } from "../sql-store.ts";
import type { Store } from "../store.ts";
import { Writes } from "../writes.ts";
import { ORDER } from "./changes.ts";
import type { ConnectOptions } from "./connection.ts";
import { Follower } from "./follower.ts";
import { openPool, type Pg } from "./pool.ts";

export interface PostgresOptions extends ConnectOptions {
  readonly clock: Clock;
  readonly random?: () => number;
  /** How long a database that is away is waited for. Default 30 s. */
  readonly patienceMs?: number;
  /** Told when the database goes away (with why) and when it is back (null). */
  readonly onState?: (problem: Error | null) => void;
}

const RETRY = { firstMs: 100, maxMs: 2_000 };

/**
 * Opens the store, and makes or updates its tables. Errors: `config-invalid`, `file-missing`; `unavailable` where the database
 * did not answer in time; `storage-failed` where it refuses.
 */
export async function openPostgresStore(options: PostgresOptions): Promise<Store> {
  const { clock, random = Math.random, onState = () => {} } = options;
  const { pool, config, place } = await patiently(options, () => openPool(options));
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  try {
    await migrate(db, "postgres");
    const writes = new Writes(db, await counter(db, CHANGES), ORDER);
    const follower = new Follower({ db, writes, config, place, clock, random, onState });
    return await makeSqlStore(db, {
      writes,
      // Drawn from a sequence: in the order of intent at each replica, and unique over all.
      nextPosition: () => sql<number>`nextval('issuance_position')`,
      close: async () => {
        await follower.close();
        await db.destroy();
      },
    });
  } catch (error) {
    await db.destroy();
    throw error;
  }
}

/** A server and its database often start together. */
async function patiently(
  { clock, random = Math.random, patienceMs = 30_000, onState }: PostgresOptions,
  open: () => Promise<Pg>,
) {
  const giveUpAt = clock.now() + patienceMs;
  for (let attempt = 0; ; attempt++) {
    try {
      return await open();
    } catch (thrown) {
      const error = toEveryhopError(thrown);
      const waitMs = backoffMs(attempt, RETRY, random());
      if (error.code !== "unavailable" || clock.now() + waitMs > giveUpAt) {
        throw error;
      }
      if (attempt === 0) {
        onState?.(error);
      }
      await new Promise<void>((resolve) => void clock.after(waitMs, resolve));
    }
  }
}
