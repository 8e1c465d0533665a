/** What the agent keeps on disk: restarts while the server is away, and what may have happened to the files meanwhile. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import type { EveryhopError } from "../../core/base/errors.ts";
import { parseSpiffeId } from "../../core/spiffe/id.ts";
import { PermissionDeniedDetails_Reason as Reason } from "../../gen/spire/api/types/status_pb.js";
import { type Log, silentLog } from "../../io/log.ts";
import { makeSealer } from "../../io/seal.ts";
import { watchX509, workloadClient, workloadMetadata } from "../../workload/workload-api.ts";
import type { AgentOptions, RunningAgent } from "./agent.ts";
import type { CacheContents } from "./cache.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { Keeper } from "./keeper.ts";
import { parseKept } from "./kept-document.ts";
import { FakeServer } from "./server-fixture.ts";

const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";
const MINUTE_MS = 60_000;

let clock: FakeClock;
let server: FakeServer;
let folder: ReturnType<typeof testFolder>;
const open: { close(): unknown }[] = [];
const said: string[] = [];
const note = (message: string) => void said.push(message);
const log: Log = { ...silentLog, info: note, warn: note, error: note };

async function cleanUp(): Promise<void> {
  for (const one of open.splice(0).reverse()) {
    await one.close();
  }
  await server?.close();
  folder?.remove();
}
beforeEach(async () => {
  await cleanUp();
  said.length = 0;
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  folder = testFolder();
  await server.listen();
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID], createdAt: 1, federatesWith: ["other.org"] });
  server.federated.set("other.org", [server.ca.der]);
});
after(cleanUp);

async function start(options: Partial<AgentOptions> = {}): Promise<RunningAgent> {
  const agent = await startTestAgent(server, folder.dir, { log, ...options });
  open.push(agent);
  return agent;
}

function watch(agent: RunningAgent) {
  const source = watchX509({ socket: agent.socket, log: silentLog, clock, random: () => 0 });
  open.push(source);
  return source;
}

/** An agent with an SVID that has all on disk; its files are as a crash would leave them. */
async function kept(): Promise<RunningAgent> {
  const agent = await start();
  await until(
    () => agent.cache.svidCount === 1 && agent.keptAtMs() !== null,
    "it is kept",
    () => clock.advance(20),
  );
  return agent;
}

/** Everything on disk as it is now is what a new agent starts from: as after SIGKILL. */
async function crash(agent: RunningAgent): Promise<void> {
  const copy = mkdtempSync(join(folder.dir, "copy-"));
  const pairs = ["data/keys", "data/identities", "key"].map((name) => {
    return [join(folder.dir, name), join(copy, basename(name))] as const;
  });
  for (const [from, to] of pairs) {
    execFileSync("cp", ["-a", from, to]);
  }
  await agent.close();
  for (const [from, to] of pairs) {
    rmSync(from, { recursive: true });
    renameSync(to, from);
  }
}

const identities = () => join(folder.dir, "data", "identities", "identities");
const files = (dir: string): string[] =>
  readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

test("an agent restarted while the server is away serves every SVID, bundle and token that has not expired", async () => {
  const first = await kept();
  const client = workloadClient(first.socket.replace("unix://", "unix:"));
  const metadata = workloadMetadata();
  const { svids } = await client.fetchJWTSVID({ audience: ["shop"] }, { metadata });
  client.close();
  const serial = first.cache.contents().svids.get("e1")?.svid.serial;
  const keptAt = first.keptAtMs() ?? 0;
  await until(
    () => (first.keptAtMs() ?? 0) > keptAt,
    "the token is kept",
    () => clock.advance(20),
  );
  await server.close();
  await crash(first);
  const second = await start({ joinToken: null });
  assert.ok(second.sync.value.problem !== null, "the server is away");
  assert.ok((second.sync.value.syncedAtMs ?? 0) > 0);
  const source = watch(second);
  await until(() => source.svid.value !== null, "the identity");
  assert.deepEqual([source.svid.value?.id, source.svid.value?.serial], [WEB, serial]);
  assert.deepEqual([...source.bundles.value.keys()].sort(), ["example.com", "other.org"]);
  const again = workloadClient(second.socket.replace("unix://", "unix:"));
  open.push(again);
  assert.deepEqual((await again.fetchJWTSVID({ audience: ["shop"] }, { metadata })).svids, svids);
  await assert.rejects(again.fetchJWTSVID({ audience: ["another"] }, { metadata }), /could not fetch JWT-SVID/);
  const valid = await again.validateJWTSVID({ audience: "shop", svid: svids[0]?.svid ?? "" }, { metadata });
  assert.equal(valid.spiffeId, WEB);
  server.addEntry({ id: "e2", spiffeId: API, selectors: [UID], createdAt: 2 });
  await server.listen();
  await until(
    () => source.svids.value.length === 2,
    "the server is back",
    () => clock.advance(50),
  );
  assert.equal(second.sync.value.problem, null);
});

test("what expired while the agent was down is not served", async () => {
  server.state.svidTtlMs = 10 * MINUTE_MS;
  const first = await kept();
  await server.close();
  await crash(first);
  clock.advance(11 * MINUTE_MS);
  const second = await start({ joinToken: null });
  assert.equal(second.cache.svidCount, 0);
  const source = watch(second);
  await until(() => source.state.value.kind === "away", "that it cannot be had");
  assert.match(JSON.stringify(source.state.value), /no SVID could be obtained/);
});

test("with the server there, the restarted agent asks it before it serves what was kept", async () => {
  const first = await kept();
  await crash(first);
  server.setEntries({ id: "e2", spiffeId: API, selectors: [UID], createdAt: 2 });
  const second = await start({ joinToken: null });
  assert.deepEqual([...second.cache.entries.keys()], ["e2"]);
});

test("what was withdrawn is off the disk at the moment it is withdrawn", async (t) => {
  const cases: Record<string, { change: () => void; seen: (held: CacheContents) => boolean }> = {
    "an entry": { change: () => server.setEntries(), seen: ({ entries }) => entries.length === 0 },
    "an entry that is another now": {
      change: () => server.setEntries({ id: "e1", spiffeId: WEB, selectors: ["unix:uid:1"], revision: 1 }),
      seen: ({ entries }) => entries[0]?.revision === 1,
    },
    "an authority": {
      change: () => server.rotateCa("drop"),
      seen: ({ bundles }) => (bundles[0]?.sequence ?? 0n) > 1n,
    },
    "a federated trust domain": {
      change: () => {
        server.federated.clear();
        server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID], revision: 2 });
      },
      seen: ({ bundles }) => bundles.length === 1,
    },
  };
  for (const [name, { change, seen }] of Object.entries(cases)) {
    await t.test(name, async () => {
      server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID], createdAt: 1, federatesWith: ["other.org"] });
      server.state.token = "token-1";
      rmSync(join(folder.dir, "data"), { recursive: true, force: true });
      const agent = await kept();
      let bytes: Uint8Array | null = null;
      const unwatch = agent.cache.changed.watch(() => {
        if (bytes === null && seen(agent.cache.contents())) {
          bytes = readFileSync(identities());
        }
      });
      change();
      await until(() => bytes !== null, "the withdrawal");
      unwatch();
      const sealer = makeSealer(readFileSync(join(folder.dir, "key", "cache.key")));
      const opened = sealer.open(bytes ?? new Uint8Array(), "agent of example.com\nidentities");
      assert.ok(seen(parseKept(opened as Uint8Array)), "what is on disk");
      await agent.close();
    });
  }
});

test("a disk that takes nothing any more keeps nothing that was withdrawn, and the agent serves on", async () => {
  const erased: string[] = [];
  const held = new Map([["identities", new Uint8Array()]]);
  const full = () => Promise.reject(new Error("no space left"));
  const keeper = new Keeper({
    store: {
      identities: {
        read: async (name) => held.get(name) ?? null,
        write: full,
        remove: async (name) => void held.delete(name),
        list: async () => [...held.keys()],
      },
      generation: { read: async () => 0, write: async () => {} },
    },
    agentId: () => parseSpiffeId("spiffe://example.com/spire/agent/x"),
    contents: () => ({ entries: [], svids: new Map(), bundles: [], tokens: [], syncedAtMs: 0 }),
    clock,
    log,
  });
  await keeper.withdraw({ kind: "entries", entries: [] }, () => void erased.push(...held.keys(), "applied"));
  assert.deepEqual(erased, ["applied"]);
  assert.deepEqual(said, ["cannot keep identities on disk; a restart while the server is away would lose them"]);
});

test("no key is on disk in clear, and what is there is the owner's alone", async () => {
  const agent = await kept();
  const keys = [agent.own.value.svid, ...[...agent.cache.contents().svids.values()].map(({ svid }) => svid)];
  for (const file of [...files(join(folder.dir, "data")), ...files(join(folder.dir, "key"))]) {
    const bytes = readFileSync(file);
    for (const { keyDer, chain } of keys) {
      const raw = Buffer.from(keyDer);
      for (const form of [
        raw,
        raw.toString("base64"),
        raw.toString("hex"),
        Buffer.from(chain[0] ?? []).toString("base64"),
      ]) {
        assert.equal(bytes.includes(form), false, file);
      }
    }
    assert.equal(statSync(file).mode & 0o077, 0, file);
  }
});

test("files that were changed, cut short or exchanged are discarded, with the reason in the log", async (t) => {
  const change = (path: string, to: (bytes: Buffer) => Uint8Array) => writeFileSync(path, to(readFileSync(path)));
  const ownSvid = () => join(folder.dir, "data", "keys", "agent-svid.json");
  const cases: Record<string, () => void> = {
    "an octet": () =>
      change(identities(), (bytes) => {
        bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
        return bytes;
      }),
    "cut short": () => change(identities(), (bytes) => bytes.subarray(0, bytes.length >> 1)),
    empty: () => change(identities(), () => new Uint8Array()),
    "in clear": () => change(identities(), () => Buffer.from("{}")),
    "another file of this agent": () => copyFileSync(ownSvid(), identities()),
  };
  for (const [name, damage] of Object.entries(cases)) {
    await t.test(name, async () => {
      server.state.token = "token-1";
      rmSync(join(folder.dir, "data"), { recursive: true, force: true });
      await crash(await kept());
      damage();
      said.length = 0;
      const agent = await start({ joinToken: null });
      assert.ok(
        said.some((message) => /discarded: it is damaged, was changed/.test(message)),
        said.join("\n"),
      );
      assert.ok(!said.some((message) => /what an earlier run kept/.test(message)));
      assert.equal(agent.cache.svidCount, 1);
      await agent.close();
    });
  }
});

test("an older copy put back is discarded", async () => {
  const first = await kept();
  const before = readFileSync(identities());
  server.setEntries({ id: "e2", spiffeId: API, selectors: [UID], createdAt: 2 });
  await until(
    () => first.cache.svidCount === 1 && first.cache.entries.has("e2") && existsSync(identities()),
    "the newer copy",
    () => clock.advance(20),
  );
  await server.close();
  await crash(first);
  writeFileSync(identities(), before, { mode: 0o600 });
  const starting = start({ joinToken: null });
  await until(() => said.some((message) => /an older copy and is discarded/.test(message)), "the reason in the log");
  await server.listen();
  let second: RunningAgent | undefined;
  void starting.then((agent) => {
    second = agent;
  });
  await until(
    () => second !== undefined,
    "the start",
    () => clock.advance(50),
  );
  assert.deepEqual([...(second?.cache.entries.keys() ?? [])], ["e2"]);
});

test("without the key nothing of it is used, and the agent says what it needs", async () => {
  await crash(await kept());
  rmSync(join(folder.dir, "key"), { recursive: true });
  await assert.rejects(start({ joinToken: null }), (error: EveryhopError) => {
    assert.deepEqual([error.code, /join token/.test(error.message)], ["unauthenticated", true]);
    return true;
  });
  assert.ok(said.some((message) => /discarded: it is damaged, was changed, or is of another key/.test(message)));
});

test("an agent that joined anew takes nothing of the one before it", async () => {
  await crash(await kept());
  rmSync(join(folder.dir, "data", "keys"), { recursive: true });
  server.state.token = "token-2";
  const agent = await start({ joinToken: "token-2" });
  assert.equal(agent.own.value.svid.id, "spiffe://example.com/spire/agent/join_token/token-2");
  assert.ok(said.some((message) => /another agent's and is discarded/.test(message)));
});

test("an agent that is banned leaves nothing to go on with", async () => {
  const agent = await kept();
  server.state.deny = Reason.AGENT_BANNED;
  server.addEntry({ id: "e2", spiffeId: API, selectors: [UID] });
  await assert.rejects(agent.ended);
  assert.equal(existsSync(identities()), false);
});

test("kept in memory, nothing is on disk", async () => {
  const agent = await start({ cache: "memory" });
  await until(() => agent.cache.svidCount === 1, "the SVID");
  await agent.close();
  assert.deepEqual(files(join(folder.dir, "data")), []);
});
