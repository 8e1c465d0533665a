import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { EveryhopError } from "../../core/base/errors.ts";
import { parseSelector } from "../../core/entries/selector.ts";
import { aNode, anEntry, anIntent, assertOldest, hasCode, storeContract } from "./contract.ts";
import { retryContract } from "./retry-contract.ts";
import { openSqliteStore } from "./sqlite.ts";

async function make() {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-store-"));
  const file = join(dir, "server.db");
  const under = {
    store: await openSqliteStore(file),
    async reopen() {
      await under.store.close();
      under.store = await openSqliteStore(file);
      return under.store;
    },
    async end() {
      await under.store.close();
      rmSync(dir, { recursive: true });
    },
  };
  return under;
}

storeContract("sqlite", make);
retryContract("sqlite", async () => {
  const under = {
    store: await openSqliteStore(":memory:"),
    reopen: async () => under.store,
    end: () => under.store.close(),
  };
  return under;
});

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-store-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

const failsWithHint = (hint: RegExp) => (error: unknown) =>
  error instanceof EveryhopError && error.code === "storage-failed" && hint.test(error.hint ?? "");

test("what was journaled is there after a crash: a copy of the files as they are opens with it", async (t) => {
  const dir = folder(t);
  const store = await openSqliteStore(join(dir, "a.db"));
  t.after(() => store.close());
  await store.issuance.intend([anIntent("01")], 1);
  await store.nodes.attested(aNode());
  // Nothing is closed or checkpointed: this is what a SIGKILL leaves.
  copyFileSync(join(dir, "a.db"), join(dir, "b.db"));
  copyFileSync(join(dir, "a.db-wal"), join(dir, "b.db-wal"));
  const after = await openSqliteStore(join(dir, "b.db"));
  t.after(() => after.close());
  assert.equal((await after.issuance.get("01"))?.issued, null);
  assert.deepEqual(await after.nodes.all(), [aNode()]);
});

test("a file that is no database is refused", async (t) => {
  const file = join(folder(t), "server.db");
  writeFileSync(file, "this was never a database ".repeat(400));
  await assert.rejects(openSqliteStore(file), failsWithHint(/backup/));
});

test("a damaged database is refused", async (t) => {
  const dir = folder(t);
  const file = join(dir, "server.db");
  const store = await openSqliteStore(file);
  for (let index = 0; index < 200; index++) {
    await store.entries.create(
      anEntry({
        id: `e${index}`,
        hint: `${index}`,
        dnsNames: ["x".repeat(400)],
        selectors: [parseSelector(`unix:uid:${index}`)],
      }),
    );
  }
  await store.close();
  truncateSync(file, Math.floor(statSync(file).size / 2 / 4096) * 4096);
  await assert.rejects(openSqliteStore(file), failsWithHint(/backup/));
});

test("a folder that is not there is said", async (t) => {
  await assert.rejects(openSqliteStore(join(folder(t), "no/such/server.db")), failsWithHint(/create the data folder/));
});

test("a second server on the same database is refused", async (t) => {
  const file = join(folder(t), "server.db");
  const store = await openSqliteStore(file);
  t.after(() => store.close());
  await assert.rejects(openSqliteStore(file), failsWithHint(/another server/));
});

test("the oldest database there is comes to this version with all that is in it", async (t) => {
  const file = join(folder(t), "server.db");
  const raw = new DatabaseSync(file);
  raw.exec(readFileSync(new URL("testdata/schema-1.sql", import.meta.url), "utf8"));
  raw.close();
  const store = await openSqliteStore(file);
  t.after(() => store.close());
  await assertOldest(store);
});

test("a database of a newer version is refused", async (t) => {
  const file = join(folder(t), "server.db");
  await (await openSqliteStore(file)).close();
  const raw = new DatabaseSync(file);
  raw.exec("update counters set value = 999 where name = 'schema'");
  raw.close();
  await assert.rejects(openSqliteStore(file), failsWithHint(/newer everyhop/));
});

test("a full disk is an error with the next step, and the store goes on once there is room", async (t) => {
  const file = join(folder(t), "server.db");
  await (await openSqliteStore(file)).close();
  const store = await openSqliteStore(file, { maxPages: 24 });
  t.after(() => store.close());
  const big = (index: number) =>
    anEntry({ id: `e${index}`, selectors: [parseSelector(`unix:${index}${"x".repeat(3_000)}`)] });
  const fill = async () => {
    for (let index = 0; index < 100; index++) {
      await store.entries.create(big(index));
    }
  };
  await assert.rejects(fill(), failsWithHint(/make room/));
  const kept = await store.entries.all();
  assert.ok(kept.length > 0 && kept.length < 100);
  await store.entries.delete(kept[0]?.id ?? "");
  await store.entries.create(big(200));
  await assert.rejects(
    store.entries.create(anEntry({ id: "e200", spiffeId: anEntry().parentId })),
    hasCode("already-exists"),
  );
});
