import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type { Database } from "./schema.ts";
import type { RelationshipRecord, RelationshipStore } from "./store.ts";
import type { Write } from "./writes.ts";

/** Those of `names`, or all in order of trust domain. */
export async function readRelationships(
  db: Database,
  names?: readonly string[],
): Promise<readonly RelationshipRecord[]> {
  const query = db.selectFrom("relationships").selectAll();
  const chosen = names === undefined ? query.orderBy("trust_domain") : query.where("trust_domain", "in", names);
  const rows = await chosen.execute();
  return rows.map(({ trust_domain, url, endpoint_spiffe_id }) => ({
    trustDomain: trust_domain as TrustDomain,
    url,
    endpointSpiffeId: endpoint_spiffe_id as SpiffeId | null,
  }));
}

export function relationshipStore(db: Database, write: Write): RelationshipStore {
  return {
    all: () => readRelationships(db),
    put: (trustDomain, change) =>
      write(async (transaction, changed) => {
        const [current = null] = await readRelationships(transaction, [trustDomain]);
        const relationship = change(current);
        const row = { url: relationship.url, endpoint_spiffe_id: relationship.endpointSpiffeId };
        await transaction
          .insertInto("relationships")
          .values({ trust_domain: trustDomain, ...row })
          .onConflict((conflict) => conflict.column("trust_domain").doUpdateSet(row))
          .execute();
        changed({ kind: "relationship", id: trustDomain, relationship });
        return relationship;
      }),
    delete: (trustDomain) =>
      write(async (transaction, changed) => {
        const { numDeletedRows } = await transaction
          .deleteFrom("relationships")
          .where("trust_domain", "=", trustDomain)
          .executeTakeFirst();
        if (numDeletedRows > 0n) {
          changed({ kind: "relationship", id: trustDomain, relationship: null });
        }
        return numDeletedRows > 0n;
      }),
  };
}
