import { entryStore } from "./entry-rows.ts";
import { issuanceStore } from "./issuance-rows.ts";
import { nodeStore } from "./node-rows.ts";
import type { Database } from "./schema.ts";
import { bundleStore, joinTokenStore, killStore } from "./small-rows.ts";
import type { Store } from "./store.ts";
import { type Write, Writes } from "./writes.ts";

/** The store over any SQL database that has the schema. */
export async function makeSqlStore(db: Database): Promise<Store> {
  const row = await db.selectFrom("counters").select("value").where("name", "=", "changes").executeTakeFirst();
  const writes = new Writes(db, row?.value ?? 0);
  const write: Write = (work) => writes.run(work);
  return {
    entries: entryStore(db, write),
    nodes: nodeStore(db, write),
    joinTokens: joinTokenStore(db),
    issuance: await issuanceStore(db),
    kills: killStore(db, write),
    bundles: bundleStore(db, write),
    watch: (watcher) => writes.watch(watcher),
    get revision() {
      return writes.revision;
    },
    close: () => db.destroy(),
  };
}
