import { createHash } from "node:crypto";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type { Database } from "./schema.ts";
import type { BundleRecord, BundleStore, JoinTokenStore, KillRecord, KillStore } from "./store.ts";
import type { Write } from "./writes.ts";

export function joinTokenStore(db: Database): JoinTokenStore {
  return {
    async create(token, expiresAt) {
      await db
        .insertInto("join_tokens")
        .values({ digest: digest(token), expires_at: expiresAt })
        .execute();
    },
    async take(token) {
      // RACE: one statement finds and deletes; of many that ask at once, one has a row back.
      const row = await db
        .deleteFrom("join_tokens")
        .where("digest", "=", digest(token))
        .returning("expires_at")
        .executeTakeFirst();
      return row === undefined ? null : { expiresAt: row.expires_at };
    },
    async prune(before) {
      const { numDeletedRows } = await db.deleteFrom("join_tokens").where("expires_at", "<", before).executeTakeFirst();
      return Number(numDeletedRows);
    },
  };
}

function digest(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

export function killStore(db: Database, write: Write): KillStore {
  const find = async (from: Database, spiffeId: SpiffeId): Promise<KillRecord | null> => {
    const row = await from.selectFrom("kills").selectAll().where("spiffe_id", "=", spiffeId).executeTakeFirst();
    return row === undefined ? null : { order: row.order_id, spiffeId, since: row.since };
  };
  return {
    async all() {
      const rows = await db.selectFrom("kills").selectAll().orderBy("spiffe_id").execute();
      return rows.map((row) => ({ order: row.order_id, spiffeId: row.spiffe_id as SpiffeId, since: row.since }));
    },
    add: (kill) =>
      write(async (transaction, changed) => {
        const { order, spiffeId, since } = kill;
        const inForce = await find(transaction, spiffeId);
        if (inForce !== null) {
          return inForce;
        }
        await transaction.insertInto("kills").values({ spiffe_id: spiffeId, order_id: order, since }).execute();
        changed({ kind: "kill", id: spiffeId, kill });
        return kill;
      }),
    remove: (spiffeId) =>
      write(async (transaction, changed) => {
        const kill = await find(transaction, spiffeId);
        if (kill !== null) {
          await transaction.deleteFrom("kills").where("spiffe_id", "=", spiffeId).execute();
          changed({ kind: "kill", id: spiffeId, kill: null });
        }
        return kill;
      }),
  };
}

export function bundleStore(db: Database, write: Write): BundleStore {
  const find = async (from: Database, trustDomain: TrustDomain): Promise<BundleRecord | null> => {
    const row = await from
      .selectFrom("bundles")
      .select(["sequence", "document"])
      .where("trust_domain", "=", trustDomain)
      .executeTakeFirst();
    return row === undefined ? null : { trustDomain, ...row };
  };
  return {
    async all() {
      const rows = await db.selectFrom("bundles").selectAll().orderBy("trust_domain").execute();
      return rows.map(({ trust_domain, ...rest }) => ({ trustDomain: trust_domain as TrustDomain, ...rest }));
    },
    get: (trustDomain) => find(db, trustDomain),
    put: (trustDomain, change) =>
      write(async (transaction, changed) => {
        const current = await find(transaction, trustDomain);
        const bundle = change(current);
        if (bundle !== current) {
          const { sequence, document } = bundle;
          await transaction
            .insertInto("bundles")
            .values({ trust_domain: trustDomain, sequence, document })
            .onConflict((conflict) => conflict.column("trust_domain").doUpdateSet({ sequence, document }))
            .execute();
          changed({ kind: "bundle", id: trustDomain, bundle });
        }
        return bundle;
      }),
    delete: (trustDomain) =>
      write(async (transaction, changed) => {
        const { numDeletedRows } = await transaction
          .deleteFrom("bundles")
          .where("trust_domain", "=", trustDomain)
          .executeTakeFirst();
        if (numDeletedRows === 0n) {
          return false;
        }
        changed({ kind: "bundle", id: trustDomain, bundle: null });
        return true;
      }),
  };
}
