/** The schema's versions, and the way from each to the next. */
import { sql } from "kysely";
import { EveryhopError } from "../../core/base/errors.ts";
import { CHANGES, counter, type Database, setCounter } from "./schema.ts";

export type Dialect = "sqlite" | "postgres";

type Migration = (db: Database, dialect: Dialect) => Promise<void>;

/**
 * Version N of the schema is what the first N migrations make. INVARIANT: one that was released never changes: testdata/ has
 * each version's tables, as that version left them.
 */
const MIGRATIONS: readonly Migration[] = [firstSchema, severalReplicas, relationships, labelsAndVersions];

/** Any number, but ours: replicas that start together migrate one after the other. */
const MIGRATION_LOCK = 0x65766879;

/**
 * Brings the schema to this version, in one transaction: either all of it is done, or nothing.
 * Errors: `storage-failed` where a newer everyhop wrote the database.
 */
export async function migrate(db: Database, dialect: Dialect): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    if (dialect === "postgres") {
      await sql`select pg_advisory_xact_lock(${sql.lit(MIGRATION_LOCK)})`.execute(transaction);
    }
    await sql`create table if not exists counters (name text primary key, value bigint not null)`.execute(transaction);
    const version = await counter(transaction, "schema");
    if (version > MIGRATIONS.length) {
      throw new EveryhopError(
        "storage-failed",
        `the database has schema version ${version}; this everyhop knows ${MIGRATIONS.length}`,
        { hint: "a newer everyhop wrote it: run that version, or restore a backup from before" },
      );
    }
    for (const migration of MIGRATIONS.slice(version)) {
      await migration(transaction, dialect);
    }
    if (version < MIGRATIONS.length) {
      await setCounter(transaction, "schema", MIGRATIONS.length);
    }
  });
}

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

/** A token says who took it, and what replicas need to hear of each other's changes. */
async function severalReplicas(db: Database, dialect: Dialect): Promise<void> {
  await db.schema.alterTable("join_tokens").addColumn("claim", "text").execute();
  // Its row is what writers of all replicas queue up for.
  await setCounter(db, CHANGES, await counter(db, CHANGES));
  if (dialect === "postgres") {
    await db.schema
      .createTable("changes")
      .addColumn("position", "bigint", (c) => c.primaryKey())
      .addColumn("kind", "text", (c) => c.notNull())
      .addColumn("record", "text", (c) => c.notNull())
      .execute();
    await sql`create sequence issuance_position owned by issuance.position`.execute(db);
    await sql`select setval('issuance_position', (select coalesce(max(position), 0) + 1 from issuance), false)`.execute(
      db,
    );
  }
}

/** Trust domains whose bundles are followed. */
async function relationships({ schema }: Database): Promise<void> {
  await schema
    .createTable("relationships")
    .addColumn("trust_domain", "text", (c) => c.primaryKey())
    .addColumn("url", "text", (c) => c.notNull())
    .addColumn("endpoint_spiffe_id", "text")
    .execute();
}

async function labelsAndVersions({ schema }: Database): Promise<void> {
  await schema
    .alterTable("entries")
    .addColumn("labels", "text", (c) => c.notNull().defaultTo("{}"))
    .execute();
  await schema
    .alterTable("nodes")
    .addColumn("agent_version", "text", (c) => c.notNull().defaultTo(""))
    .execute();
}
