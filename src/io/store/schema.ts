/** The tables, in types and columns that SQLite and PostgreSQL share: text and integers; lists as JSON text. */
import { type Kysely, sql } from "kysely";
import { EveryhopError } from "../../core/base/errors.ts";

export interface Tables {
  entries: {
    id: string;
    spiffe_id: string;
    parent_id: string;
    /** JSON list. */
    selectors: string;
    /** Digest of SPIFFE ID, parent and selectors: two entries with one digest are similar. */
    similar_key: string;
    x509_svid_ttl_ms: number;
    jwt_svid_ttl_ms: number;
    federates_with: string;
    admin: number;
    downstream: number;
    expires_at: number | null;
    dns_names: string;
    revision: number;
    store_svid: number;
    hint: string;
    created_at: number;
    disable_x509_svid_prefetch: number;
    jwt_svid_include_jti: number;
  };
  nodes: {
    id: string;
    attestation_type: string;
    serial: string;
    expires_at: number;
    next_serial: string | null;
    next_expires_at: number | null;
    banned: number;
    can_reattest: number;
    selectors: string;
  };
  join_tokens: { digest: string; expires_at: number };
  issuance: {
    position: number;
    serial: string;
    kind: string;
    spiffe_id: string;
    entry_id: string;
    authority_id: string;
    not_before: number;
    not_after: number;
    dns_names: string;
    audiences: string;
    digest: string;
    intended_at: number;
  };
  /** What became of an intent; without a row here nothing was handed out. Both tables are only ever added to. */
  issued: {
    serial: string;
    /** Base64. */
    document: string;
  };
  kills: { spiffe_id: string; order_id: string; since: number };
  bundles: { trust_domain: string; sequence: number; document: string };
  counters: { name: string; value: number };
}

export type Database = Kysely<Tables>;

type Migration = (db: Database) => Promise<void>;

/** Version N of the schema is what the first N migrations make. INVARIANT: one that was released never changes. */
const MIGRATIONS: readonly Migration[] = [firstSchema];

async function firstSchema(db: Database): Promise<void> {
  const { schema } = db;
  await schema
    .createTable("entries")
    .addColumn("id", "text", (c) => c.primaryKey())
    .addColumn("spiffe_id", "text", (c) => c.notNull())
    .addColumn("parent_id", "text", (c) => c.notNull())
    .addColumn("selectors", "text", (c) => c.notNull())
    .addColumn("similar_key", "text", (c) => c.notNull().unique())
    .addColumn("x509_svid_ttl_ms", "bigint", (c) => c.notNull())
    .addColumn("jwt_svid_ttl_ms", "bigint", (c) => c.notNull())
    .addColumn("federates_with", "text", (c) => c.notNull())
    .addColumn("admin", "integer", (c) => c.notNull())
    .addColumn("downstream", "integer", (c) => c.notNull())
    .addColumn("expires_at", "bigint")
    .addColumn("dns_names", "text", (c) => c.notNull())
    .addColumn("revision", "bigint", (c) => c.notNull())
    .addColumn("store_svid", "integer", (c) => c.notNull())
    .addColumn("hint", "text", (c) => c.notNull())
    .addColumn("created_at", "bigint", (c) => c.notNull())
    .addColumn("disable_x509_svid_prefetch", "integer", (c) => c.notNull())
    .addColumn("jwt_svid_include_jti", "integer", (c) => c.notNull())
    .execute();
  await schema
    .createTable("nodes")
    .addColumn("id", "text", (c) => c.primaryKey())
    .addColumn("attestation_type", "text", (c) => c.notNull())
    .addColumn("serial", "text", (c) => c.notNull())
    .addColumn("expires_at", "bigint", (c) => c.notNull())
    .addColumn("next_serial", "text")
    .addColumn("next_expires_at", "bigint")
    .addColumn("banned", "integer", (c) => c.notNull())
    .addColumn("can_reattest", "integer", (c) => c.notNull())
    .addColumn("selectors", "text", (c) => c.notNull())
    .execute();
  await schema
    .createTable("join_tokens")
    .addColumn("digest", "text", (c) => c.primaryKey())
    .addColumn("expires_at", "bigint", (c) => c.notNull())
    .execute();
  await issuanceTable(db);
  await smallTables(db);
}

async function issuanceTable({ schema }: Database): Promise<void> {
  await schema
    .createTable("issuance")
    .addColumn("position", "bigint", (c) => c.primaryKey())
    .addColumn("serial", "text", (c) => c.notNull().unique())
    .addColumn("kind", "text", (c) => c.notNull())
    .addColumn("spiffe_id", "text", (c) => c.notNull())
    .addColumn("entry_id", "text", (c) => c.notNull())
    .addColumn("authority_id", "text", (c) => c.notNull())
    .addColumn("not_before", "bigint", (c) => c.notNull())
    .addColumn("not_after", "bigint", (c) => c.notNull())
    .addColumn("dns_names", "text", (c) => c.notNull())
    .addColumn("audiences", "text", (c) => c.notNull())
    .addColumn("digest", "text", (c) => c.notNull())
    .addColumn("intended_at", "bigint", (c) => c.notNull())
    .execute();
  await schema.createIndex("issuance_not_after").on("issuance").column("not_after").execute();
  await schema
    .createTable("issued")
    .addColumn("serial", "text", (c) => c.primaryKey().references("issuance.serial"))
    .addColumn("document", "text", (c) => c.notNull())
    .execute();
}

async function smallTables({ schema }: Database): Promise<void> {
  await schema
    .createTable("kills")
    .addColumn("spiffe_id", "text", (c) => c.primaryKey())
    .addColumn("order_id", "text", (c) => c.notNull())
    .addColumn("since", "bigint", (c) => c.notNull())
    .execute();
  await schema
    .createTable("bundles")
    .addColumn("trust_domain", "text", (c) => c.primaryKey())
    .addColumn("sequence", "bigint", (c) => c.notNull())
    .addColumn("document", "text", (c) => c.notNull())
    .execute();
}

/**
 * Brings the schema to this version, each step in a transaction of its own.
 * Errors: `storage-failed` where a newer everyhop wrote the database.
 */
export async function migrate(db: Database): Promise<void> {
  await sql`create table if not exists counters (name text primary key, value bigint not null)`.execute(db);
  const row = await db.selectFrom("counters").select("value").where("name", "=", "schema").executeTakeFirst();
  const version = row?.value ?? 0;
  if (version > MIGRATIONS.length) {
    throw new EveryhopError(
      "storage-failed",
      `the database has schema version ${version}; this everyhop knows ${MIGRATIONS.length}`,
      { hint: "a newer everyhop wrote it: run that version, or restore a backup from before" },
    );
  }
  for (let next = version; next < MIGRATIONS.length; next++) {
    await db.transaction().execute(async (transaction) => {
      await MIGRATIONS[next]?.(transaction);
      await setCounter(transaction, "schema", next + 1);
    });
  }
}

export async function setCounter(db: Database, name: string, value: number): Promise<void> {
  await db
    .insertInto("counters")
    .values({ name, value })
    .onConflict((conflict) => conflict.column("name").doUpdateSet({ value }))
    .execute();
}
