/** The tables, in types and columns that SQLite and PostgreSQL share: text and integers; lists as JSON text. */
import type { Kysely } from "kysely";

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
    /** JSON mapping. */
    labels: string;
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
    agent_version: string;
  };
  join_tokens: {
    digest: string;
    expires_at: number;
    /** Who took it; null while it is there to be taken. */
    claim: string | null;
  };
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
  relationships: { trust_domain: string; url: string; endpoint_spiffe_id: string | null };
  /** PostgreSQL alone: which records changed, in the order of the commits. What each is now stands in its own table. */
  changes: { position: number; kind: string; record: string };
  counters: { name: string; value: number };
}

export type Database = Kysely<Tables>;

/** The counter's last value, which the next change goes on from. */
export const CHANGES = "changes";

export async function setCounter(db: Database, name: string, value: number): Promise<void> {
  await db
    .insertInto("counters")
    .values({ name, value })
    .onConflict((conflict) => conflict.column("name").doUpdateSet({ value }))
    .execute();
}

export async function counter(db: Database, name: string): Promise<number> {
  const row = await db.selectFrom("counters").select("value").where("name", "=", name).executeTakeFirst();
  return row?.value ?? 0;
}
