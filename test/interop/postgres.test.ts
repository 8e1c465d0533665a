import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { EveryhopError } from "../../src/core/base/errors.ts";
import { parseSelector } from "../../src/core/entries/selector.ts";
import { testCa, testKey, testLeaf } from "../../src/core/x509/fixture.ts";
import { certificatesToPem } from "../../src/core/x509/pem.ts";
import { systemClock } from "../../src/io/clock.ts";
import { aNode, anEntry, anIntent, assertOldest, hasCode, storeContract, toldOf } from "../../src/io/store/contract.ts";
import { openPool } from "../../src/io/store/postgres/pool.ts";
import { openPostgresStore } from "../../src/io/store/postgres/postgres.ts";
import type { Store, StoreEvent } from "../../src/io/store/store.ts";
import { without } from "../peers.ts";
import { type Cluster, startCluster, tlsSettings } from "./postgres-cluster.ts";

const open = (connection: string, onState?: (problem: Error | null) => void) =>
  openPostgresStore({ connection, clock: systemClock, ...(onState === undefined ? {} : { onState }) });

/** The next event of a store that `wanted` accepts, and all before it. */
function heard(store: Store, wanted: (event: StoreEvent) => boolean): Promise<readonly StoreEvent[]> {
  const events: StoreEvent[] = [];
  return new Promise((resolve) => {
    const end = store.watch((event) => {
      events.push(event);
      if (wanted(event)) {
        end();
        resolve(events);
      }
    });
  });
}

const isEntry = (id: string) => (event: StoreEvent) => event.kind === "entry" && event.id === id;
const numbered = (index: number) => anEntry({ id: `e${index}`, selectors: [parseSelector(`unix:uid:${index}`)] });

/** Asks until it is answered otherwise than that the database is away. */
async function persist<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof EveryhopError && error.code === "unavailable")) {
        throw error;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

const skip = without("postgres");
let cluster: Cluster;
before(async () => {
  if (skip === false) {
    cluster = await startCluster();
  }
});
after(() => cluster?.stop());

async function replicas(count: number): Promise<readonly Store[]> {
  const connection = await cluster.database();
  const stores = await Promise.all(Array.from({ length: count }, () => open(connection)));
  after(() => Promise.all(stores.map((store) => store.close())));
  return stores;
}

const make = async () => {
  const connection = await cluster.database();
  const under = {
    store: await open(connection),
    async reopen() {
      await under.store.close();
      under.store = await open(connection);
      return under.store;
    },
    end: () => under.store.close(),
  };
  return under;
};

if (skip === false) {
  storeContract("postgres", make);
}

test("the oldest database there is comes to this version with all that is in it", { skip }, async () => {
  const connection = await cluster.database();
  const oldest = new URL("../../src/io/store/testdata/schema-1.sql", import.meta.url);
  await cluster.run(readFileSync(oldest, "utf8"), connection);
  const [store, other] = await Promise.all([open(connection), open(connection)]);
  after(() => Promise.all([store.close(), other.close()]));
  await assertOldest(store);
});

test("three that start together on an empty database make its tables once", { skip }, async () => {
  const [one, two, three] = (await replicas(3)) as [Store, Store, Store];
  await one.entries.create(anEntry());
  assert.deepEqual([await two.entries.all(), await three.entries.all()], [[anEntry()], [anEntry()]]);
});

test("what one writes the others hear, each change once, in one order for all", { skip }, async () => {
  const stores = await replicas(3);
  const events = stores.map((store) => heard(store, isEntry("last")));
  const writes = Array.from({ length: 60 }, (_, index) => (stores[index % 3] as Store).entries.create(numbered(index)));
  await Promise.all(writes);
  await (stores[1] as Store).entries.create(anEntry({ id: "last" }));
  const [first = [], ...others] = (await Promise.all(events)).map((list) => list.map((event) => toldOf(event)));
  assert.equal(first.length, 61);
  assert.deepEqual(
    first.map((line) => Number(line.split(" ")[0])),
    Array.from({ length: 61 }, (_, index) => index + 1),
    "without gaps",
  );
  for (const other of others) {
    assert.deepEqual(other, first);
  }
});

test("the same entry made at two at once is made once", { skip }, async () => {
  const stores = await replicas(3);
  const made = await Promise.all(stores.map((store, index) => store.entries.create(anEntry({ id: `e${index}` }))));
  assert.equal(made.filter(({ created }) => created).length, 1);
  assert.equal(new Set(made.map(({ entry }) => entry.id)).size, 1);
});

test("twenty race for one join token on three: one gets it", { skip }, async () => {
  const stores = await replicas(3);
  await (stores[0] as Store).joinTokens.create("secret", 5_000);
  const takes = await Promise.all(
    Array.from({ length: 20 }, (_, index) => (stores[index % 3] as Store).joinTokens.take("secret", `claim ${index}`)),
  );
  assert.equal(takes.filter((taken) => taken !== null).length, 1);
});

test("a serial number is unique over all, and each has its place in the journal", { skip }, async () => {
  const [one, two] = (await replicas(2)) as [Store, Store];
  const serials = (prefix: string) => Array.from({ length: 100 }, (_, index) => anIntent(`${prefix}${index}`));
  await Promise.all([one.issuance.intend(serials("a"), 1), two.issuance.intend(serials("b"), 1)]);
  await assert.rejects(two.issuance.intend([anIntent("c0"), anIntent("a7")], 1), hasCode("already-exists"));
  assert.equal((await one.issuance.list({ limit: 1_000 })).records.length, 200);
});

test("a ban at one holds while the node attests at another", { skip }, async () => {
  const [one, two] = (await replicas(2)) as [Store, Store];
  await one.nodes.attested(aNode());
  await Promise.allSettled([
    one.nodes.update(aNode().id, (node) => ({ ...node, serial: "", banned: true })),
    ...Array.from({ length: 10 }, () => two.nodes.attested(aNode({ serial: "0b" }))),
  ]);
  assert.equal((await two.nodes.get(aNode().id))?.banned, true);
});

test("connections cut at any moment lose nothing and double nothing", { skip }, async () => {
  const stores = await replicas(2);
  const [, two] = stores as [Store, Store];
  const all = heard(two, isEntry("last"));
  let cutting = true;
  const cut = async () => {
    while (cutting) {
      await cluster.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'everyhop'");
    }
  };
  const cutter = cut();
  try {
    for (let index = 0; index < 40; index++) {
      await persist(() => (stores[index % 2] as Store).entries.create(numbered(index)));
    }
  } finally {
    cutting = false;
    await cutter;
  }
  await persist(() => two.entries.create(anEntry({ id: "last" })));
  const told = (await all).map((event) => toldOf(event));
  assert.equal(new Set(told).size, 41, "each change was told once");
  assert.equal(told.length, 41);
  assert.equal((await persist(() => two.entries.all())).length, 41);
});

test("a database that is of a newer version, or not there, is refused with the next step", { skip }, async () => {
  const connection = await cluster.database();
  await (await open(connection)).close();
  await cluster.run("update counters set value = 999 where name = 'schema'", connection);
  const refused = (hint: RegExp) => (error: unknown) =>
    error instanceof EveryhopError && error.code === "storage-failed" && hint.test(error.hint ?? "");
  await assert.rejects(open(connection), refused(/newer everyhop/));
  await assert.rejects(open(connection.replace(/\/test\d+/, "/nowhere")), refused(/createdb/));
});

test("who was away for longer than the log reaches, or whose database was restored, hears the differences all the same", {
  skip,
}, async () => {
  const connection = await cluster.database();
  const store = await open(connection);
  after(() => store.close());
  await store.entries.create(anEntry());
  const replaced = heard(store, ({ kind }) => kind === "replaced");
  // As if much had been written and forgotten: the log begins after what this replica knows.
  await cluster.run(
    `begin; delete from entries; delete from changes; update counters set value = 90 where name = 'changes';
     insert into changes values (90, 'entry', 'e9'); notify everyhop_changes, '90'; commit`,
    connection,
  );
  const event = (await replaced).at(-1);
  assert.ok(event?.kind === "replaced");
  assert.deepEqual([event.snapshot.revision, event.snapshot.entries], [90, []]);
  assert.equal(store.revision, 90);
  // And as if a backup had been restored.
  const back = heard(store, ({ kind }) => kind === "replaced");
  await cluster.run(
    "delete from changes; update counters set value = 7 where name = 'changes'; notify everyhop_changes, '91'",
    connection,
  );
  await back;
  await persist(() => store.entries.create(anEntry()));
  assert.equal(store.revision, 8);
});

test("a database that restarts: writes fail closed meanwhile, and go on after", { skip }, async () => {
  const own = await startCluster();
  after(() => own.stop());
  const connection = await own.database();
  const states: (string | null)[] = [];
  const store = await open(connection, (problem) => states.push(problem?.message ?? null));
  after(() => store.close());
  await store.entries.create(anEntry());
  await own.crash();
  await assert.rejects(store.entries.create(numbered(2)), hasCode("unavailable"));
  await assert.rejects(store.issuance.intend([anIntent("01")], 1), hasCode("unavailable"));
  await own.start();
  assert.equal((await persist(() => store.entries.create(numbered(3)))).created, true);
  assert.deepEqual(
    (await store.entries.all()).map(({ id }) => id),
    ["e1", "e3"],
  );
});

test("TLS to a real PostgreSQL: each sslmode does what libpq's does", { skip }, async () => {
  // OpenSSL judges certificates by the machine's clock.
  const life = { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 3_600_000 };
  const authority = testCa("database", life);
  const own = testKey();
  const leaf = testLeaf(authority, "spiffe://example.com/db", { ...life, dnsNames: ["localhost"] }, own);
  const key = own.key.export({ format: "pem", type: "pkcs8" }) as string;
  const dir = mkdtempSync(join(tmpdir(), "everyhop-tls-"));
  const [ca, other] = [authority, testCa("other", life)].map((each, index) => {
    writeFileSync(join(dir, `ca${index}.pem`), certificatesToPem([each.der]));
    return join(dir, `ca${index}.pem`);
  });
  const [port, plainPort] = [await freePort(), await freePort()];
  const tls = await startCluster((of) => tlsSettings(of, port, certificatesToPem([leaf]), key));
  const plain = await startCluster(() => ["listen_addresses=127.0.0.1", `port=${plainPort}`]);
  after(async () => {
    await Promise.all([tls.stop(), plain.stop()]);
    rmSync(dir, { recursive: true });
  });
  const outcome = async (host: string, at: number, parameters: string) => {
    try {
      const connection = `host=${host} port=${at} user=owner dbname=postgres ${parameters}`;
      const { pool } = await openPool({ connection, environment: {} });
      const client = await pool.connect();
      const { rows } = await client.query<{ ssl: boolean }>(
        "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
        [],
      );
      client.release();
      await pool.end();
      return rows[0]?.ssl === true ? "tls" : "plain";
    } catch (error) {
      return (error as EveryhopError).code;
    }
  };
  const table: readonly (readonly [string, number, string, string])[] = [
    ["localhost", port, `sslmode=verify-full sslrootcert=${ca}`, "tls"],
    ["localhost", port, `sslmode=verify-full sslrootcert=${other}`, "storage-failed"],
    ["127.0.0.1", port, `sslmode=verify-full sslrootcert=${ca}`, "storage-failed"],
    ["127.0.0.1", port, `sslmode=verify-ca sslrootcert=${ca}`, "tls"],
    ["127.0.0.1", port, `sslmode=verify-ca sslrootcert=${other}`, "storage-failed"],
    ["127.0.0.1", port, "sslmode=require", "tls"],
    ["127.0.0.1", port, "sslmode=prefer", "tls"],
    ["127.0.0.1", port, "sslmode=disable", "plain"],
    ["127.0.0.1", plainPort, "", "plain"],
    ["127.0.0.1", plainPort, "sslmode=require", "storage-failed"],
  ];
  for (const [host, at, parameters, expected] of table) {
    assert.equal(await outcome(host, at, parameters), expected, `${host} ${parameters}`);
  }
});

/** A port that was free a moment ago: PostgreSQL takes none of its own choice. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
