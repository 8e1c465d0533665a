// Our database is behind postgres-proxy's sidecar: we dial our own sidecar, and who we are is proven on the way.
import pg from "pg";

const address = process.env.EVERYHOP_POSTGRES_PROXY_ADDR ?? "127.0.0.1:5432";
const colon = address.lastIndexOf(":");

const pool = new pg.Pool({
  host: address.slice(0, colon),
  port: Number(address.slice(colon + 1)),
  user: process.env.PGUSER ?? "postgres",
  database: process.env.PGDATABASE ?? "postgres",
  password: process.env.PGPASSWORD ?? "",
  max: 4,
  // Connections stay: each one is a handshake of two sidecars.
  idleTimeoutMillis: 0,
  connectionTimeoutMillis: 5_000,
});
// A connection that ends while idle (a sidecar restarted, an identity was cut off) is replaced at the next query.
pool.on("error", (error) => console.error(`database: ${error.message}`));

let schemaMade = null;

/** Runs one query; the first one makes the tables of this service. */
export async function query(schema, text, values) {
  schemaMade ??= pool.query(schema).catch((error) => {
    schemaMade = null;
    throw error;
  });
  await schemaMade;
  return (await pool.query(text, values)).rows;
}

/** Runs `work(client)` in one transaction. */
export async function transaction(work) {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}
