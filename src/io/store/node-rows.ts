import type { Selectable } from "kysely";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Selector } from "../../core/entries/selector.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { Database, Tables } from "./schema.ts";
import type { NodeRecord, NodeStore } from "./store.ts";
import type { Write } from "./writes.ts";

/** Those with `ids`, or all in order of id. */
export async function readNodes(db: Database, ids?: readonly string[]): Promise<readonly NodeRecord[]> {
  const query = db.selectFrom("nodes").selectAll();
  return (await (ids === undefined ? query.orderBy("id") : query.where("id", "in", ids)).execute()).map(fromRow);
}

export function nodeStore(db: Database, write: Write): NodeStore {
  const find = async (from: Database, id: SpiffeId): Promise<NodeRecord | null> =>
    (await readNodes(from, [id]))[0] ?? null;
  return {
    all: () => readNodes(db),
    get: (id) => find(db, id),
    attested: (node, { first = false } = {}) =>
      write(async (transaction, changed) => {
        const current = await find(transaction, node.id);
        // RACE: a ban that came while the node attested holds.
        if (current?.banned === true) {
          throw new EveryhopError("permission-denied", `agent \`${node.id}\` is banned`);
        }
        if (first && current !== null) {
          throw new EveryhopError("permission-denied", "attestation data has already been used to attest an agent", {
            hint: "`everyhop agent evict` lets its host attest anew",
          });
        }
        const row = toRow(node);
        await transaction
          .insertInto("nodes")
          .values(row)
          .onConflict((conflict) => conflict.column("id").doUpdateSet(row))
          .execute();
        changed({ kind: "node", id: node.id, node });
      }),
    update: (id, change) =>
      write(async (transaction, changed) => {
        const current = await find(transaction, id);
        if (current === null) {
          return null;
        }
        const node = change(current);
        if (node !== current) {
          await transaction.updateTable("nodes").set(toRow(node)).where("id", "=", id).execute();
          changed({ kind: "node", id, node });
        }
        return node;
      }),
    delete: (id) =>
      write(async (transaction, changed) => {
        const { numDeletedRows } = await transaction.deleteFrom("nodes").where("id", "=", id).executeTakeFirst();
        if (numDeletedRows === 0n) {
          return false;
        }
        changed({ kind: "node", id, node: null });
        return true;
      }),
  };
}

function toRow(node: NodeRecord): Tables["nodes"] {
  return {
    id: node.id,
    attestation_type: node.attestationType,
    serial: node.serial,
    expires_at: node.expiresAt,
    next_serial: node.next?.serial ?? null,
    next_expires_at: node.next?.expiresAt ?? null,
    banned: Number(node.banned),
    can_reattest: Number(node.canReattest),
    selectors: JSON.stringify(node.selectors),
    agent_version: node.agentVersion,
  };
}

function fromRow(row: Selectable<Tables["nodes"]>): NodeRecord {
  return {
    id: row.id as SpiffeId,
    attestationType: row.attestation_type,
    serial: row.serial,
    expiresAt: row.expires_at,
    next: row.next_serial === null ? null : { serial: row.next_serial, expiresAt: row.next_expires_at ?? 0 },
    banned: row.banned === 1,
    canReattest: row.can_reattest === 1,
    selectors: JSON.parse(row.selectors) as Selector[],
    agentVersion: row.agent_version,
  };
}
