/**
 * What many entries and many agents cost a server: memory, the start, a change, and the sync of all agents. A change should cost
 * what it touches: read the columns downwards, they should stay as they are while entries and agents grow a hundredfold.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { create, toBinary } from "@bufbuild/protobuf";
import { parseSpiffeId, parseTrustDomain, type SpiffeId } from "../../src/core/spiffe/id.ts";
import { SyncAuthorizedEntriesResponseSchema } from "../../src/gen/spire/api/server/entry/v1/entry_pb.js";
import { Bundles } from "../../src/identity/server/bundles.ts";
import { entryToWire } from "../../src/identity/server/entry-wire.ts";
import { NodeWatch } from "../../src/identity/server/node-watch.ts";
import { Registry } from "../../src/identity/server/registry.ts";
import { systemClock } from "../../src/io/clock.ts";
import { openSqliteStore } from "../../src/io/store/sqlite.ts";
import { agentId, fill, TRUST_DOMAIN } from "./fill.ts";
import { measureOverGrpc } from "./grpc.ts";

const quick = process.argv.includes("--quick");
const SIZES: readonly (readonly [entries: number, agents: number])[] = quick
  ? [
      [1_000, 100],
      [10_000, 100],
      [10_000, 1_000],
    ]
  : [
      [1_000, 100],
      [10_000, 100],
      [100_000, 100],
      [10_000, 1_000],
      [100_000, 1_000],
      [100_000, 10_000],
    ];
const CHANGES = quick ? 60 : 300;

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

interface Figures {
  readonly entries: number;
  readonly agents: number;
  readonly bytesPerEntry: number;
  readonly loadMs: number;
  readonly changeUs: number;
  readonly told: number;
  readonly syncMs: number;
}

/** An agent's watch, as gRPC would carry it. */
class FakeCall {
  told = 0;
  on(): this {
    return this;
  }
  emit(): boolean {
    return true;
  }
  write(): boolean {
    this.told++;
    return true;
  }
}

async function measure(entries: number, agents: number): Promise<Figures> {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-bench-"));
  const file = join(dir, "server.db");
  await fill(file, entries, agents);
  collectGarbage();
  const heapBefore = process.memoryUsage().heapUsed;
  const started = performance.now();
  const store = await openSqliteStore(file);
  const trustDomain = parseTrustDomain(TRUST_DOMAIN);
  const registry = await Registry.open({ store, trustDomain, clock: systemClock });
  const loadMs = performance.now() - started;
  collectGarbage();
  const bytesPerEntry = (process.memoryUsage().heapUsed - heapBefore) / entries;
  const bundles = new Bundles({ store, registry, serverId: "bench" });
  const watch = new NodeWatch({ registry, bundles, clock: { now: () => 0, after: () => () => {} } }).service().watch;
  const calls = Array.from({ length: agents }, (_, agent) => {
    const call = new FakeCall();
    const context = { caller: { kind: "local", process: null }, node: registry.node(agentId(agent) as SpiffeId) };
    watch?.(call as never, context as never);
    return call;
  });
  const toldBefore = calls.reduce((sum, { told }) => sum + told, 0);
  const changeUs = await costOfChange(registry);
  const told = (calls.reduce((sum, call) => sum + call.told, 0) - toldBefore) / CHANGES;
  const syncMs = syncAll(registry, agents);
  await store.close();
  rmSync(dir, { recursive: true });
  return { entries, agents, bytesPerEntry, loadMs, changeUs, told, syncMs };
}

/** CPU of one change, in turns a new entry, a changed one and one that is deleted: all the way to the disk and to the agent. */
async function costOfChange(registry: Registry): Promise<number> {
  const run = async (count: number): Promise<void> => {
    for (let index = 0; index < count / 3; index++) {
      const spiffeId = parseSpiffeId(`spiffe://${TRUST_DOMAIN}/new/${index}`);
      const draft = { spiffeId, parentId: agentId(index % 100), selectors: [`unix:uid:${index}`] };
      const { entry } = await registry.createEntry(draft);
      await registry.updateEntry(entry.id, (current) => ({ ...current, hint: "changed" }));
      await registry.deleteEntry(entry.id);
    }
    await new Promise((resolve) => setImmediate(resolve));
  };
  await run(30);
  const before = process.cpuUsage();
  await run(CHANGES - 30);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / (CHANGES - 30);
}

/** What each agent gets at its first sync, encoded. */
function syncAll(registry: Registry, agents: number): number {
  const before = process.cpuUsage();
  for (let agent = 0; agent < agents; agent++) {
    const entries = registry.authorizedEntries(agentId(agent) as SpiffeId).map((entry) => entryToWire(entry));
    toBinary(SyncAuthorizedEntriesResponseSchema, create(SyncAuthorizedEntriesResponseSchema, { entries }));
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

const HEAD = ["entries", "agents", "bytes/entry", "load ms", "µs CPU/change", "agents told", "sync all, ms CPU"];

function row(cells: readonly (string | number)[]): string {
  return cells.map((cell) => (typeof cell === "number" ? cell.toLocaleString("en") : cell).padStart(16)).join("");
}

console.log(row(HEAD));
const all: Figures[] = [];
for (const [entries, agents] of SIZES) {
  const figures = await measure(entries, agents);
  all.push(figures);
  const { bytesPerEntry, loadMs, changeUs, told, syncMs } = figures;
  console.log(
    row([
      entries,
      agents,
      Math.round(bytesPerEntry),
      Math.round(loadMs),
      Math.round(changeUs),
      Number(told.toFixed(2)),
      Math.round(syncMs),
    ]),
  );
}

console.log("\nCPU of one change, by entries × agents (flat is good):");
const most = Math.max(...all.map(({ changeUs }) => changeUs));
for (const { entries, agents, changeUs } of all) {
  const label = `${entries.toLocaleString("en")} × ${agents.toLocaleString("en")}`;
  console.log(
    `${label.padStart(18)} ${"█".repeat(Math.max(1, Math.round((40 * changeUs) / most)))} ${Math.round(changeUs)} µs`,
  );
}

console.log(`\n${await measureOverGrpc(quick ? { entries: 1_000, agents: 10 } : { entries: 100_000, agents: 50 })}`);
