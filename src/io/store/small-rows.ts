import { createHash } from "node:crypto";
import { EveryhopError } from "../../core/base/errors.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type { Database } from "./schema.ts";
import type { BundleRecord, BundleStore, JoinTokenStore, KillRecord, KillStore } from "./store.ts";
import type { Write } from "./writes.ts";

export function joinTokenStore(db: Database): JoinTokenStore {
  return {
    async create(token, expiresAt) {
      const made = await db
        .insertInto("join_tokens")
        .values({ digest: digest(token), expires_at: expiresAt, claim: null })
        // One that was taken leaves its place to another of the same value.
        .onConflict((conflict) =>
          conflict
            .column("digest")
            .doUpdateSet({ expires_at: expiresAt, claim: null })
            .where("join_tokens.claim", "is not", null),
        )
        .returning("digest")
        .executeTakeFirst();
      if (made === undefined) {
        throw new EveryhopError("already-exists", "a join token of this value is there already");
      }
    },
    async take(token, claim) {
      // RACE: one statement finds and claims; of many that ask at once, on any replica, one has a row back.
      const row = await db
        .updateTable("join_tokens")
        .set({ claim })
        .where("digest", "=", digest(token))
        .where((where) => where.or([where("claim", "is", null), where("claim", "=", claim)]))
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

/** Those of `ids`, or all in order of SPIFFE ID. */
export async function readKills(db: Database, ids?: readonly string[]): Promise<readonly KillRecord[]> {
  const query = db.selectFrom("kills").selectAll();
  const rows = await (ids === undefined ? query.orderBy("spiffe_id") : query.where("spiffe_id", "in", ids)).execute();
  return rows.map((row) => ({ order: row.order_id, spiffeId: row.spiffe_id as SpiffeId, since: row.since }));
}

export function killStore(db: Database, write: Write): KillStore {
  const find = async (from: Database, spiffeId: SpiffeId): Promise<KillRecord | null> =>
    (await readKills(from, [spiffeId]))[0] ?? null;
  return {
    all: () => readKills(db),
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

/** Those of `names`, or all in order of trust domain. */
export async function readBundles(db: Database, names?: readonly string[]): Promise<readonly BundleRecord[]> {
  const query = db.selectFrom("bundles").selectAll();
  const chosen = names === undefined ? query.orderBy("trust_domain") : query.where("trust_domain", "in", names);
  const rows = await chosen.execute();
  return rows.map(({ trust_domain, ...rest }) => ({ trustDomain: trust_domain as TrustDomain, ...rest }));
}

export function bundleStore(db: Database, write: Write): BundleStore {
  const find = async (from: Database, trustDomain: TrustDomain): Promise<BundleRecord | null> =>
    (await readBundles(from, [trustDomain]))[0] ?? null;
  return {
    all: () => readBundles(db),
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
