import { createHash } from "node:crypto";
import type { Selectable } from "kysely";
import { EveryhopError } from "../../core/base/errors.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type { Database, Tables } from "./schema.ts";
import type { Write } from "./sql-store.ts";
import type { Entry, EntryStore, Selector } from "./store.ts";

export function entryStore(db: Database, write: Write): EntryStore {
  return {
    async all() {
      return (await db.selectFrom("entries").selectAll().orderBy("id").execute()).map(fromRow);
    },
    create: (entry) =>
      write(async (transaction, changed) => {
        const row = toRow(entry);
        const similar = await transaction
          .selectFrom("entries")
          .selectAll()
          .where("similar_key", "=", row.similar_key)
          .executeTakeFirst();
        if (similar !== undefined) {
          return { created: false, entry: fromRow(similar) };
        }
        await transaction.insertInto("entries").values(row).execute();
        changed({ kind: "entry", id: entry.id, entry });
        return { created: true, entry };
      }),
    update: (id, change) =>
      write(async (transaction, changed) => {
        const row = await transaction.selectFrom("entries").selectAll().where("id", "=", id).executeTakeFirst();
        if (row === undefined) {
          throw new EveryhopError("not-found", `entry \`${id}\` is not there`);
        }
        const entry = change(fromRow(row));
        await transaction.updateTable("entries").set(toRow(entry)).where("id", "=", id).execute();
        changed({ kind: "entry", id, entry });
        return entry;
      }),
    delete: (id) =>
      write(async (transaction, changed) => {
        const { numDeletedRows } = await transaction.deleteFrom("entries").where("id", "=", id).executeTakeFirst();
        if (numDeletedRows === 0n) {
          return false;
        }
        changed({ kind: "entry", id, entry: null });
        return true;
      }),
  };
}

/** Equal for entries that are similar: the order of selectors, and a selector given twice, make no difference. */
function similarKey(entry: Entry): string {
  const selectors = [...new Set(entry.selectors.map(({ type, value }) => JSON.stringify([type, value])))].sort();
  return createHash("sha256")
    .update(JSON.stringify([entry.spiffeId, entry.parentId, selectors]))
    .digest("hex");
}

export function selectorsToText(selectors: readonly Selector[]): string {
  return JSON.stringify(selectors.map(({ type, value }) => [type, value]));
}

export function selectorsFromText(text: string): readonly Selector[] {
  return (JSON.parse(text) as [string, string][]).map(([type, value]) => ({ type, value }));
}

function toRow(entry: Entry): Tables["entries"] {
  return {
    id: entry.id,
    spiffe_id: entry.spiffeId,
    parent_id: entry.parentId,
    selectors: selectorsToText(entry.selectors),
    similar_key: similarKey(entry),
    x509_svid_ttl_ms: entry.x509SvidTtlMs,
    jwt_svid_ttl_ms: entry.jwtSvidTtlMs,
    federates_with: JSON.stringify(entry.federatesWith),
    admin: Number(entry.admin),
    downstream: Number(entry.downstream),
    expires_at: entry.expiresAt,
    dns_names: JSON.stringify(entry.dnsNames),
    revision: entry.revision,
    store_svid: Number(entry.storeSvid),
    hint: entry.hint,
    created_at: entry.createdAt,
  };
}

function fromRow(row: Selectable<Tables["entries"]>): Entry {
  return {
    id: row.id,
    spiffeId: row.spiffe_id as SpiffeId,
    parentId: row.parent_id as SpiffeId,
    selectors: selectorsFromText(row.selectors),
    x509SvidTtlMs: row.x509_svid_ttl_ms,
    jwtSvidTtlMs: row.jwt_svid_ttl_ms,
    federatesWith: JSON.parse(row.federates_with) as TrustDomain[],
    admin: row.admin === 1,
    downstream: row.downstream === 1,
    expiresAt: row.expires_at,
    dnsNames: JSON.parse(row.dns_names) as string[],
    revision: row.revision,
    storeSvid: row.store_svid === 1,
    hint: row.hint,
    createdAt: row.created_at,
  };
}
