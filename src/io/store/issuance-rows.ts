import type { RawBuilder, Selectable } from "kysely";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { Database, Tables } from "./schema.ts";
import type { IssuanceIntent, IssuanceRecord, IssuanceStore } from "./store.ts";

/** Rows of one statement: SQLite takes 32766 parameters at most. */
const CHUNK = 500;

/** Gives each intent its place in the journal. */
export type NextPosition = () => number | RawBuilder<number>;

/** Where nobody else writes: the next is one more than the last. */
export async function countPositions(db: Database): Promise<NextPosition> {
  const top = await db.selectFrom("issuance").select(db.fn.max("position").as("position")).executeTakeFirst();
  let position = Number(top?.position ?? 0);
  return () => ++position;
}

export function issuanceStore(db: Database, next: NextPosition): IssuanceStore {
  return {
    async intend(intents, nowMs) {
      const rows = intents.map((intent) => ({ ...toRow(intent, nowMs), position: next() }));
      await db.transaction().execute(async (transaction) => {
        for (let start = 0; start < rows.length; start += CHUNK) {
          await transaction
            .insertInto("issuance")
            .values(rows.slice(start, start + CHUNK))
            .execute();
        }
      });
    },
    async record(signed) {
      const rows = signed.map(({ serial, issued }) => ({ serial, document: Buffer.from(issued).toString("base64") }));
      await db.transaction().execute(async (transaction) => {
        for (let start = 0; start < rows.length; start += CHUNK) {
          await transaction
            .insertInto("issued")
            .values(rows.slice(start, start + CHUNK))
            .execute();
        }
      });
    },
    async get(serial) {
      const row = await joined(db).where("issuance.serial", "=", serial).executeTakeFirst();
      return row === undefined ? null : fromRow(row);
    },
    list: (options) => list(db, options),
    count: () => count(db),
    prune: (before) => prune(db, before),
  };
}

function joined(db: Database) {
  return db
    .selectFrom("issuance")
    .leftJoin("issued", "issued.serial", "issuance.serial")
    .selectAll("issuance")
    .select("issued.document");
}

async function list(db: Database, { liveAt, after = 0, limit }: Parameters<IssuanceStore["list"]>[0]) {
  let query = joined(db)
    .where("position", ">", after)
    .orderBy("position")
    .limit(limit + 1);
  if (liveAt !== undefined) {
    query = query.where("not_after", ">", liveAt).where("issued.document", "is not", null);
  }
  const rows = await query.execute();
  const page = rows.slice(0, limit);
  return { records: page.map(fromRow), next: rows.length > limit ? (page.at(-1)?.position ?? null) : null };
}

async function count(db: Database) {
  const rows = (table: "issuance" | "issued") =>
    db.selectFrom(table).select(db.fn.countAll<number>().as("count")).executeTakeFirstOrThrow();
  const all = Number((await rows("issuance")).count);
  const issued = Number((await rows("issued")).count);
  return { issued, unfinished: all - issued };
}

function prune(db: Database, before: number): Promise<number> {
  return db.transaction().execute(async (transaction) => {
    const expired = transaction.selectFrom("issuance").select("serial").where("not_after", "<", before);
    await transaction.deleteFrom("issued").where("serial", "in", expired).execute();
    const { numDeletedRows } = await transaction
      .deleteFrom("issuance")
      .where("not_after", "<", before)
      .executeTakeFirst();
    return Number(numDeletedRows);
  });
}

function toRow(intent: IssuanceIntent, nowMs: number): Omit<Tables["issuance"], "position"> {
  return {
    serial: intent.serial,
    kind: intent.kind,
    spiffe_id: intent.spiffeId,
    entry_id: intent.entryId,
    authority_id: intent.authorityId,
    not_before: intent.notBeforeMs,
    not_after: intent.notAfterMs,
    dns_names: JSON.stringify(intent.dnsNames),
    audiences: JSON.stringify(intent.audiences),
    digest: intent.digest,
    intended_at: nowMs,
  };
}

function fromRow(row: Selectable<Tables["issuance"]> & { document: string | null }): IssuanceRecord {
  return {
    serial: row.serial,
    kind: row.kind as IssuanceIntent["kind"],
    spiffeId: row.spiffe_id as SpiffeId,
    entryId: row.entry_id,
    authorityId: row.authority_id,
    notBeforeMs: row.not_before,
    notAfterMs: row.not_after,
    dnsNames: JSON.parse(row.dns_names) as string[],
    audiences: JSON.parse(row.audiences) as string[],
    digest: row.digest,
    intendedAtMs: row.intended_at,
    issued: row.document === null ? null : Buffer.from(row.document, "base64"),
  };
}
