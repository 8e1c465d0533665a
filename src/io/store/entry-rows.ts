import { createHash } from "node:crypto";
import type { Selectable } from "kysely";
import { EveryhopError } from "../../core/base/errors.ts";
import { entryKey, type Labels, type RegistrationEntry } from "../../core/entries/entry.ts";
import type { Selector } from "../../core/entries/selector.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type { Database, Tables } from "./schema.ts";
import type { EntryStore } from "./store.ts";
import type { Write } from "./writes.ts";

/** Those with `ids`, or all in order of id. */
export async function readEntries(db: Database, ids?: readonly string[]): Promise<readonly RegistrationEntry[]> {
  const query = db.selectFrom("entries").selectAll();
  return (await (ids === undefined ? query.orderBy("id") : query.where("id", "in", ids)).execute()).map(fromRow);
}

export function entryStore(db: Database, write: Write): EntryStore {
  return {
    all: () => readEntries(db),
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

/** Equal for entries that are similar. A digest, since PostgreSQL does not index long texts. */
function similarKey(entry: RegistrationEntry): string {
  return createHash("sha256").update(entryKey(entry)).digest("hex");
}

function toRow(entry: RegistrationEntry): Tables["entries"] {
  return {
    id: entry.id,
    spiffe_id: entry.spiffeId,
    parent_id: entry.parentId,
    selectors: JSON.stringify(entry.selectors),
    similar_key: similarKey(entry),
    x509_svid_ttl_ms: entry.x509SvidTtlMs,
    jwt_svid_ttl_ms: entry.jwtSvidTtlMs,
    federates_with: JSON.stringify(entry.federatesWith),
    admin: Number(entry.admin),
    downstream: Number(entry.downstream),
    expires_at: entry.expiresAtMs,
    dns_names: JSON.stringify(entry.dnsNames),
    revision: entry.revision,
    store_svid: Number(entry.storeSvid),
    hint: entry.hint,
    created_at: entry.createdAtMs,
    disable_x509_svid_prefetch: Number(entry.disableX509SvidPrefetch),
    jwt_svid_include_jti: Number(entry.jwtSvidIncludeJti),
    labels: JSON.stringify(entry.labels),
  };
}

/** Texts that many entries have in common, each kept once. Cleared when it has grown: nothing is lost but memory. */
const common = new Map<string, string>();
const MAX_COMMON = 50_000;

function shared<T extends string>(text: T): T {
  const known = common.get(text);
  if (known !== undefined) {
    return known as T;
  }
  if (common.size >= MAX_COMMON) {
    common.clear();
  }
  common.set(text, text);
  return text;
}

const EMPTY: readonly never[] = Object.freeze([]);
const NO_LABELS: Labels = Object.freeze({});

function listOf<T extends string>(json: string): readonly T[] {
  return json === "[]" ? EMPTY : (JSON.parse(json) as T[]).map(shared);
}

function fromRow(row: Selectable<Tables["entries"]>): RegistrationEntry {
  return {
    id: row.id,
    spiffeId: row.spiffe_id as SpiffeId,
    parentId: shared(row.parent_id as SpiffeId),
    selectors: listOf<Selector>(row.selectors),
    x509SvidTtlMs: row.x509_svid_ttl_ms,
    jwtSvidTtlMs: row.jwt_svid_ttl_ms,
    federatesWith: listOf<TrustDomain>(row.federates_with),
    admin: row.admin === 1,
    downstream: row.downstream === 1,
    expiresAtMs: row.expires_at,
    dnsNames: listOf(row.dns_names),
    revision: row.revision,
    storeSvid: row.store_svid === 1,
    hint: row.hint,
    createdAtMs: row.created_at,
    disableX509SvidPrefetch: row.disable_x509_svid_prefetch === 1,
    jwtSvidIncludeJti: row.jwt_svid_include_jti === 1,
    labels: row.labels === "{}" ? NO_LABELS : (JSON.parse(row.labels) as Labels),
  };
}
