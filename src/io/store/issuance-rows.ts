import type { Selectable } from "kysely";
import { EveryhopError } from "../../core/base/errors.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { Database, Tables } from "./schema.ts";
import type { IssuanceIntent, IssuanceRecord, IssuanceStore } from "./store.ts";

/** Rows of one statement: SQLite takes 32766 parameters at most. */
const CHUNK = 500;

export async function issuanceStore(db: Database): Promise<IssuanceStore> {
  const top = await db.selectFrom("issuance").select(db.fn.max("position").as("position")).executeTakeFirst();
  let position = Number(top?.position ?? 0);
  return {
    async intend(intents, nowMs) {
      const rows = intents.map((intent) => toRow(intent, ++position, nowMs));
      await db.transaction().execute(async (transaction) => {
        for (let start = 0; start < rows.length; start += CHUNK) {
          await transaction
            .insertInto("issuance")
            .values(rows.slice(start, start + CHUNK))
            .execute();
        }
      });
    },
    record: (signed) =>
      db.transaction().execute(async (transaction) => {
        for (const { serial, issued } of signed) {
          const { numUpdatedRows } = await transaction
            .updateTable("issuance")
            .set({ issued: Buffer.from(issued).toString("base64") })
            .where("serial", "=", serial)
            .where("issued", "is", null)
            .executeTakeFirst();
          if (numUpdatedRows === 0n) {
            throw await whyNotIssued(transaction, serial);
          }
        }
      }),
    async get(serial) {
      const row = await db.selectFrom("issuance").selectAll().where("serial", "=", serial).executeTakeFirst();
      return row === undefined ? null : fromRow(row);
    },
    list: (options) => list(db, options),
    count: () => count(db),
    async prune(before) {
      const { numDeletedRows } = await db.deleteFrom("issuance").where("not_after", "<", before).executeTakeFirst();
      return Number(numDeletedRows);
    },
  };
}

async function list(db: Database, { liveAt, after = 0, limit }: Parameters<IssuanceStore["list"]>[0]) {
  let query = db
    .selectFrom("issuance")
    .selectAll()
    .where("position", ">", after)
    .orderBy("position")
    .limit(limit + 1);
  if (liveAt !== undefined) {
    query = query.where("not_after", ">", liveAt).where("issued", "is not", null);
  }
  const rows = await query.execute();
  const page = rows.slice(0, limit);
  return { records: page.map(fromRow), next: rows.length > limit ? (page.at(-1)?.position ?? null) : null };
}

async function count(db: Database) {
  const { all, issued } = await db
    .selectFrom("issuance")
    .select(({ fn }) => [fn.countAll<number>().as("all"), fn.count<number>("issued").as("issued")])
    .executeTakeFirstOrThrow();
  return { issued: Number(issued), unfinished: Number(all) - Number(issued) };
}

async function whyNotIssued(db: Database, serial: string): Promise<EveryhopError> {
  const row = await db.selectFrom("issuance").select("serial").where("serial", "=", serial).executeTakeFirst();
  return row === undefined
    ? new EveryhopError("not-found", `nothing was intended under the serial \`${serial}\``)
    : new EveryhopError("already-exists", `the serial \`${serial}\` was signed before`);
}

function toRow(intent: IssuanceIntent, position: number, nowMs: number): Tables["issuance"] {
  return {
    position,
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
    issued: null,
  };
}

function fromRow(row: Selectable<Tables["issuance"]>): IssuanceRecord {
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
    issued: row.issued === null ? null : Buffer.from(row.issued, "base64"),
  };
}
