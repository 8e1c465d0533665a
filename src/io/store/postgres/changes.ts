/** The change log: how replicas on one database hear of each other's writes, each once, in the order of the commits. */
import { sql } from "kysely";
import { EveryhopError } from "../../../core/base/errors.ts";
import { readEntries } from "../entry-rows.ts";
import { readNodes } from "../node-rows.ts";
import { readRelationships } from "../relationship-rows.ts";
import { CHANGES, counter, type Database } from "../schema.ts";
import { readBundles, readKills } from "../small-rows.ts";
import type { Change } from "../store.ts";
import type { Order } from "../writes.ts";

/** Where a committed change is told of, with its position. */
export const CHANNEL = "everyhop_changes";

/** Read at once. */
export const PAGE = 1_000;
/** Kept: who missed more than these reads everything again. */
const KEPT = 100_000;
/** Between two cuttings of the log. */
const PRUNE_EVERY = 1_000;

/**
 * INVARIANT: positions grow in the order of the commits, without gaps: each writer holds the counter's row from its first
 * statement to its commit, and a transaction that fails gives its positions back. A reader that has seen position n has seen
 * all up to n.
 */
export const ORDER: Order = {
  async begin(db, revision) {
    const { value: position } = await db
      .selectFrom("counters")
      .select("value")
      .where("name", "=", CHANGES)
      .forUpdate()
      .executeTakeFirstOrThrow();
    if (position < revision || position - revision > PAGE) {
      throw new EveryhopError(
        "unavailable",
        "this server is catching up with the others after a time without its database",
        {
          hint: "ask again in a moment",
        },
      );
    }
    return { position, missed: position === revision ? [] : await readChanges(db, revision) };
  },
  async end(db, changes) {
    const position = changes.at(-1)?.revision ?? 0;
    const rows = changes.map(({ revision, kind, id }) => sql`(${sql.lit(revision)}, ${kind}, ${id})`);
    // One statement: everybody else who writes waits for each exchange with the database.
    await sql`
      with log as (insert into changes (position, kind, record) values ${sql.join(rows)}),
        moved as (update counters set value = ${sql.lit(position)} where name = ${CHANGES})
      select pg_notify(${CHANNEL}, ${String(position)})`.execute(db);
    if (Math.floor(position / PRUNE_EVERY) > Math.floor((position - changes.length) / PRUNE_EVERY)) {
      await db
        .deleteFrom("changes")
        .where("position", "<=", position - KEPT)
        .execute();
    }
  },
};

interface LogRow {
  readonly position: number;
  readonly kind: string;
  readonly record: string;
}

/**
 * The next changes after `revision`, a page at most. Null: some of them are no longer in the log, or the database has gone back
 * to before `revision` (it was restored).
 */
export async function changesAfter(db: Database, revision: number): Promise<readonly Change[] | null> {
  if ((await counter(db, CHANGES)) < revision) {
    return null;
  }
  const changes = await readChanges(db, revision);
  const first = changes[0]?.revision;
  return first === undefined || first === revision + 1 ? changes : null;
}

async function readChanges(db: Database, revision: number): Promise<readonly Change[]> {
  const rows = await db
    .selectFrom("changes")
    .selectAll()
    .where("position", ">", revision)
    .orderBy("position")
    .limit(PAGE)
    .execute();
  return withRecords(db, rows);
}

/** Each change with what its record is now. */
async function withRecords(db: Database, rows: readonly LogRow[]): Promise<readonly Change[]> {
  const idsOf = (kind: Change["kind"]) => [
    ...new Set(rows.filter((row) => row.kind === kind).map(({ record }) => record)),
  ];
  const read = async <T>(
    kind: Change["kind"],
    from: (db: Database, ids: readonly string[]) => Promise<readonly T[]>,
    id: (record: T) => string,
  ): Promise<ReadonlyMap<string, T>> => {
    const ids = idsOf(kind);
    return new Map(ids.length === 0 ? [] : (await from(db, ids)).map((record) => [id(record), record]));
  };
  const entries = await read("entry", readEntries, ({ id }) => id);
  const nodes = await read("node", readNodes, ({ id }) => id);
  const kills = await read("kill", readKills, ({ spiffeId }) => spiffeId);
  const bundles = await read("bundle", readBundles, ({ trustDomain }) => trustDomain);
  const relationships = await read("relationship", readRelationships, ({ trustDomain }) => trustDomain);
  return rows.map(({ position: revision, kind, record: id }): Change => {
    const base = { revision, kind, id };
    switch (kind) {
      case "entry":
        return { ...base, entry: entries.get(id) ?? null } as Change;
      case "node":
        return { ...base, node: nodes.get(id) ?? null } as Change;
      case "kill":
        return { ...base, kill: kills.get(id) ?? null } as Change;
      case "bundle":
        return { ...base, bundle: bundles.get(id) ?? null } as Change;
      case "relationship":
        return { ...base, relationship: relationships.get(id) ?? null } as Change;
      default:
        throw new EveryhopError(
          "storage-failed",
          `the change log has a change of \`${kind}\`, which is not known here`,
          {
            hint: "a newer everyhop writes to this database: update this server too",
          },
        );
    }
  });
}
