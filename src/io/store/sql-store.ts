import { entryStore, readEntries } from "./entry-rows.ts";
import { countPositions, issuanceStore, type NextPosition } from "./issuance-rows.ts";
import { nodeStore, readNodes } from "./node-rows.ts";
import { readRelationships, relationshipStore } from "./relationship-rows.ts";
import { CHANGES, counter, type Database } from "./schema.ts";
import { bundleStore, joinTokenStore, killStore, readBundles, readKills } from "./small-rows.ts";
import type { Snapshot, Store } from "./store.ts";
import { type Write, Writes } from "./writes.ts";

/** The store over any SQL database that has the schema; alone on it, unless told otherwise. */
export async function makeSqlStore(
  db: Database,
  shared: { readonly writes?: Writes; readonly nextPosition?: NextPosition; readonly close?: () => Promise<void> } = {},
): Promise<Store> {
  const { writes = new Writes(db, await counter(db, CHANGES)) } = shared;
  const write: Write = (work) => writes.run(work);
  return {
    entries: entryStore(db, write),
    nodes: nodeStore(db, write),
    joinTokens: joinTokenStore(db),
    issuance: issuanceStore(db, shared.nextPosition ?? (await countPositions(db))),
    kills: killStore(db, write),
    bundles: bundleStore(db, write),
    relationships: relationshipStore(db, write),
    snapshot: () => readSnapshot(db),
    watch: (watcher) => writes.watch(watcher),
    get revision() {
      return writes.revision;
    },
    close: shared.close ?? (() => db.destroy()),
  };
}

/** INVARIANT: all of it of one moment: a record that is missing was deleted at or before `revision`, or made after. */
export function readSnapshot(db: Database): Promise<Snapshot> {
  return db
    .transaction()
    .setIsolationLevel("repeatable read")
    .execute(async (transaction) => ({
      revision: await counter(transaction, CHANGES),
      entries: await readEntries(transaction),
      nodes: await readNodes(transaction),
      kills: await readKills(transaction),
      bundles: await readBundles(transaction),
      relationships: await readRelationships(transaction),
    }));
}
