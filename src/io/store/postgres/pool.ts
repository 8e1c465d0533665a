import type { PostgresPool } from "kysely";
import { type ClientConfig, Pool, type PoolClient, types } from "pg";
import type { EveryhopError } from "../../../core/base/errors.ts";
import { type Connection, type ConnectOptions, readConnection } from "./connection.ts";
import { postgresError } from "./errors.ts";

/** Connections of one replica: what is written at once is written together, so few are enough. */
const MAX_CONNECTIONS = 8;
const INT8 = 20;

/** 64-bit integers as numbers: ours are times, counts and positions, below 2^53. */
const NUMBERS = {
  getTypeParser: ((oid: number, format: "text" | "binary") =>
    oid === INT8 ? Number : types.getTypeParser(oid, format)) as typeof types.getTypeParser,
};

export interface Pg {
  readonly pool: PostgresPool;
  /** For a connection of one's own. */
  readonly config: ClientConfig;
  readonly place: string;
}

/** Connects once, to say at the start what is wrong. Errors: as `readConnection` and `postgresError`. */
export async function openPool(options: ConnectOptions): Promise<Pg> {
  const connection = readConnection(options);
  try {
    return await tryPool(connection, connection.config);
  } catch (error) {
    // SPEC: libpq: `prefer` goes on without TLS where the server has none.
    if (connection.plaintextToo && /does not support SSL/.test((error as Error).message)) {
      return tryPool(connection, { ...connection.config, ssl: false });
    }
    throw error;
  }
}

async function tryPool({ place }: Connection, given: ClientConfig): Promise<Pg> {
  const config = { ...given, types: NUMBERS };
  const pool = new Pool({ ...config, max: MAX_CONNECTIONS, idleTimeoutMillis: 60_000 });
  // A connection that ends while nobody uses it is replaced when one is needed; while somebody does, its query fails.
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  const wrapped = wrap(pool, place);
  try {
    (await wrapped.connect()).release();
    return { pool: wrapped, config, place };
  } catch (error) {
    await pool.end();
    throw error;
  }
}

/** The driver's pool, with its errors as ours. */
function wrap(pool: Pool, place: string): PostgresPool {
  return {
    end: () => pool.end(),
    connect: async () => {
      const client = await pool.connect().catch((error: unknown) => {
        throw postgresError(error, place);
      });
      return wrapClient(client, place) as unknown as Awaited<ReturnType<PostgresPool["connect"]>>;
    },
  };
}

function wrapClient(client: PoolClient, place: string) {
  let broken: EveryhopError | null = null;
  return {
    query: async (text: string, values: readonly unknown[]) => {
      // A rollback on a connection that failed would only hide why it did.
      if (broken !== null) {
        throw broken;
      }
      try {
        return await client.query(text, [...values]);
      } catch (thrown) {
        const error = postgresError(thrown, place);
        if (error.code === "unavailable") {
          broken = error;
        }
        throw error;
      }
    },
    // What failed half-way may still have an answer under way: nobody else shall read it.
    release: () => client.release(broken !== null),
  };
}
