import assert from "node:assert/strict";
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import type { EveryhopError } from "../../core/base/errors.ts";
import { parseTrustDomain } from "../../core/spiffe/id.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { PermissionDeniedDetails_Reason as Reason } from "../../gen/spire/api/types/status_pb.js";
import { silentLog } from "../../io/log.ts";
import { watchX509 } from "../../workload/workload-api.ts";
import type { AgentOptions, RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { FakeServer, TRUST_DOMAIN } from "./server-fixture.ts";

const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";

let clock: FakeClock;
let server: FakeServer;
let folder: ReturnType<typeof testFolder>;
const open: { close(): unknown }[] = [];

async function cleanUp(): Promise<void> {
  for (const one of open.splice(0).reverse()) {
    await one.close();
  }
  await server?.close();
  folder?.remove();
}

beforeEach(async () => {
  await cleanUp();
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  folder = testFolder();
  await server.listen();
});
after(cleanUp);

async function start(options: Partial<AgentOptions> = {}): Promise<RunningAgent> {
  const agent = await startTestAgent(server, folder.dir, options);
  open.push(agent);
  return agent;
}

function watch(agent: RunningAgent) {
  const source = watchX509({ socket: agent.socket, log: silentLog, clock, random: () => 0 });
  open.push(source);
  return source;
}

/** Moves time on so that waits of any component end. */
const tick = (ms: number) => () => clock.advance(ms);

test("an agent joins, and hands a workload its identity and bundle", async () => {
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const agent = await start();
  assert.equal(agent.own.value.svid.id, "spiffe://example.com/spire/agent/join_token/token-1");
  const source = watch(agent);
  await until(() => source.state.value.kind === "ready", "an identity");
  const { value: svid } = source.svid;
  assert.equal(svid?.id, WEB);
  assert.deepEqual([...source.bundles.value.keys()], ["example.com"]);
  assert.equal(parseCertificate(svid?.chain[0] as Uint8Array).serial, svid?.serial);
});

test("its folder and key are the owner's alone", async () => {
  await start();
  const data = join(folder.dir, "data");
  assert.equal(statSync(data).mode & 0o777, 0o700);
  for (const name of readdirSync(join(data, "keys"))) {
    assert.equal(statSync(join(data, "keys", name)).mode & 0o777, 0o600, name);
  }
  assert.equal(statSync(join(folder.dir, "admin.sock")).mode & 0o777, 0o600);
});

test("a restart goes on with the SVID it has, and needs no token", async () => {
  const first = await start();
  const { serial } = first.own.value.svid;
  await first.close();
  const second = await start({ joinToken: null });
  assert.equal(second.own.value.svid.serial, serial);
  assert.equal(server.calls.get("attestAgent"), 1);
});

test("a used token is refused, with the next step in the hint", async () => {
  server.state.token = null;
  await assert.rejects(start(), (error: EveryhopError) => {
    assert.deepEqual([error.code, /already been used/.test(error.message)], ["unauthenticated", true]);
    assert.match(error.hint ?? "", /token generate/);
    return true;
  });
});

test("no token and no SVID is an error that says so", async () => {
  await assert.rejects(start({ joinToken: null }), /no join token/);
});

test("a server that is not the trust domain's server gets no token", async () => {
  const other = new FakeServer(clock);
  open.push(other);
  await other.listen();
  let ended = false;
  const joining = start({ servers: [other.address] }).finally(() => {
    ended = true;
  });
  joining.catch(() => {});
  await until(() => ended, "its end after a minute", tick(500));
  await assert.rejects(joining, (error: EveryhopError) => error.code === "unavailable");
  assert.equal(other.calls.get("attestAgent"), undefined);
});

test("a new entry reaches a waiting stream at once, and its removal ends that", async () => {
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const agent = await start();
  const source = watch(agent);
  await until(() => source.svids.value.length === 1, "one identity");
  const asked = Date.now();
  server.addEntry({ id: "e2", spiffeId: API, selectors: [UID], createdAt: 5 });
  await until(() => source.svids.value.length === 2, "two identities");
  assert.ok(Date.now() - asked < 1_000, `${Date.now() - asked} ms`);
  assert.deepEqual(
    source.svids.value.map(({ id }) => id),
    [WEB, API],
  );
  server.setEntries({ id: "e2", spiffeId: API, selectors: [UID], createdAt: 5 });
  await until(() => source.svid.value?.id === API, "the first is withdrawn");
  server.setEntries();
  await until(() => source.state.value.kind === "denied", "all are withdrawn");
  assert.equal(source.svid.value, null);
});

test("an entry that comes to name another identity gives that, never the old one again", async () => {
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const source = watch(await start());
  await until(() => source.svid.value?.id === WEB, "the first identity");
  server.setEntries({ id: "e1", spiffeId: API, selectors: [UID], revision: 1 });
  await until(() => source.svid.value?.id === API, "the second identity");
});

test("SVIDs of seconds are replaced at half-life, and the stream goes on", async () => {
  server.state.svidTtlMs = 4_000;
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const source = watch(await start());
  const states: string[] = [];
  source.state.watch(({ kind }) => states.push(kind));
  await until(() => source.svid.value !== null, "an identity");
  for (let round = 0; round < 5; round++) {
    const { serial, notAfter } = source.svid.value as { serial: string; notAfter: number };
    await until(() => source.svid.value?.serial !== serial, "a new SVID", tick(20));
    assert.ok(source.svid.value !== null && clock.now() < notAfter - 1_000, "in good time");
  }
  assert.ok(states.every((kind) => kind === "ready"));
});

test("the agent renews its own SVID and goes on with it", async () => {
  server.state.agentTtlMs = 4_000;
  const agent = await start();
  for (let round = 0; round < 3; round++) {
    const { serial } = agent.own.value.svid;
    await until(() => agent.own.value.svid.serial !== serial, "a new own SVID", tick(20));
    await until(() => server.lastSerial === agent.own.value.svid.serial, "its use", tick(20));
  }
  assert.equal(server.calls.get("attestAgent"), 1);
});

test("while the server is away the cache serves, and when it is back the agent is in step again", async () => {
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const agent = await start();
  await server.close();
  await until(() => agent.sync.value.problem !== null, "the loss is seen", tick(50));
  const source = watch(agent);
  await until(() => source.svid.value?.id === WEB, "the cached identity", tick(50));
  server.setEntries({ id: "e2", spiffeId: API, selectors: [UID] });
  await server.listen();
  await until(() => source.svid.value?.id === API, "the new identity", tick(50));
  assert.equal(agent.sync.value.problem, null);
});

test("an SVID that cannot be renewed is withdrawn when it expires", async () => {
  server.state.svidTtlMs = 4_000;
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const source = watch(await start());
  await until(() => source.svid.value !== null, "an identity");
  server.state.unavailable = true;
  await until(() => source.svid.value === null, "its end", tick(50));
  server.state.unavailable = false;
  await until(() => source.svid.value !== null, "its return", tick(50));
});

test("an entry the server signs nothing for does not keep the others from theirs", async () => {
  server.state.unsigned.add("e1");
  server.setEntries(
    { id: "e1", spiffeId: WEB, selectors: [UID] },
    { id: "e2", spiffeId: API, selectors: [UID], createdAt: 1 },
  );
  const source = watch(await start());
  await until(() => source.svid.value?.id === API, "the other identity", tick(20));
  server.state.unsigned.clear();
  await until(() => source.svid.value?.id === WEB, "the first identity", tick(50));
});

for (const [name, reason, code] of [
  ["banned", Reason.AGENT_BANNED, "permission-denied"],
  ["evicted", Reason.AGENT_NOT_ATTESTED, "unauthenticated"],
  ["superseded", Reason.AGENT_NOT_ACTIVE, "unauthenticated"],
] as const) {
  test(`an agent that is ${name} ends, and forgets its SVID`, async () => {
    server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
    const agent = await start();
    server.state.deny = reason;
    server.addEntry({ id: "e2", spiffeId: API, selectors: [UID] });
    await assert.rejects(agent.ended, (error: EveryhopError) => error.code === code);
    assert.ok(!existsSync(join(folder.dir, "data", "keys", "agent-svid.json")));
    const source = watch(agent);
    await until(() => source.state.value.kind === "away", "its sockets are closed");
  });
}

test("an agent whose SVID expires while the server is away ends", async () => {
  server.state.agentTtlMs = 4_000;
  const agent = await start();
  await server.close();
  const ended = assert.rejects(agent.ended, /expired while/);
  await until(() => clock.now() > agent.own.value.svid.notAfter + 1_000, "its expiry", tick(50));
  await ended;
});

test("a new authority is trusted as soon as the bundle has it, and SVIDs of the old one stay", async () => {
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const agent = await start();
  const source = watch(agent);
  await until(() => source.svid.value !== null, "an identity");
  const { serial } = source.svid.value as { serial: string };
  server.rotateCa("keep");
  await until(() => source.bundles.value.get(TRUST_DOMAIN)?.length === 2, "both authorities");
  assert.equal(source.svid.value?.serial, serial);
  server.addEntry({ id: "e2", spiffeId: API, selectors: [UID], createdAt: 1 });
  await until(() => source.svids.value.length === 2, "an SVID of the new authority");
});

test("SVIDs of a tainted authority are replaced, the agent's own too", async () => {
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  const agent = await start();
  const source = watch(agent);
  await until(() => source.svid.value !== null, "an identity");
  const { serial } = source.svid.value as { serial: string };
  const own = agent.own.value.svid.serial;
  server.rotateCa("taint");
  await until(() => source.svid.value?.serial !== serial, "a new SVID", tick(20));
  await until(() => agent.own.value.svid.serial !== own, "a new own SVID", tick(20));
});

test("a restart after the authorities changed takes the newer trust bundle file", async () => {
  const first = await start();
  await first.close();
  server.rotateCa("drop");
  const starting = start({ joinToken: null });
  const file = join(folder.dir, "bundle.pem");
  writeFileSync(file, server.bundlePem);
  const later = new Date(clock.now() + 10_000);
  utimesSync(file, later, later);
  const agent = await starting;
  assert.equal(agent.sync.value.problem, null);
});

test("a server whose authority is unknown is named as that, with the way out; the newer file is taken up while it runs", async () => {
  const agent = await start();
  await server.close();
  server.rotateCa("drop");
  server.rotateCa("drop");
  await server.listen();
  await until(
    () => /an authority that this agent does not know/.test(agent.sync.value.problem ?? ""),
    "the reason",
    tick(50),
  );
  const file = join(folder.dir, "bundle.pem");
  writeFileSync(file, server.bundlePem);
  const later = new Date(clock.now() + 600_000);
  utimesSync(file, later, later);
  const ended = assert.rejects(agent.ended, /an authority that the server no longer knows/);
  server.state.denyAll = true;
  let over = false;
  void ended.then(() => {
    over = true;
  });
  await until(() => over, "its end: a join token is good once", tick(50));
  await ended;
});

test("many entries come as revisions first, and only what changed is asked for", async () => {
  server.state.pageSize = 10;
  const many = Array.from({ length: 55 }, (_, index) => ({
    id: `e${String(index).padStart(2, "0")}`,
    spiffeId: `${WEB}-${index}`,
    selectors: [`unix:uid:${100_000 + index}`],
  }));
  server.setEntries(...many);
  const agent = await start();
  assert.equal(agent.cache.entries.size, 55);
  assert.equal(agent.cache.svidCount, 55);
  server.setEntries(...many.slice(1), { id: "e00", spiffeId: API, selectors: [UID], revision: 1 });
  await until(() => agent.cache.entries.get("e00")?.spiffeId === API, "the changed entry");
  assert.equal(agent.cache.entries.size, 55);
});

test("a server that does not push is polled", async () => {
  server.state.push = false;
  const agent = await start();
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  await until(() => agent.cache.svidCount === 1, "the entry", tick(500));
});

test("bundles of federated trust domains are given to those whose entries name them", async () => {
  const foreign = new FakeServer(clock);
  server.federated.set("other.org", [foreign.ca.der]);
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID], federatesWith: ["other.org", "unknown.org"] });
  const source = watch(await start());
  await until(() => source.bundles.value.size === 2, "the foreign bundle");
  assert.deepEqual([...source.bundles.value.keys()].sort(), ["example.com", "other.org"]);
  const next = new FakeServer(clock);
  server.federated.set("other.org", [next.ca.der]);
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID], federatesWith: ["other.org"] });
  const other = () => source.bundles.value.get(parseTrustDomain("other.org"))?.[0];
  await until(() => Buffer.compare(other() ?? Buffer.of(), next.ca.der) === 0, "the foreign bundle's change");
});

test("a workload whose first SVID cannot be obtained is told so, and gets it when it can be", async () => {
  const agent = await start();
  await until(() => agent.sync.value.problem === null, "the sync");
  server.state.unavailable = true;
  server.setEntries({ id: "e1", spiffeId: WEB, selectors: [UID] });
  await until(() => agent.sync.value.problem !== null, "the failure", tick(20));
  server.state.unavailable = false;
  server.state.unsigned.add("e1");
  const source = watch(agent);
  await until(() => source.state.value.kind === "away", "that it cannot be had", tick(20));
  assert.match(JSON.stringify(source.state.value), /no SVID could be obtained/);
  server.state.unsigned.clear();
  await until(() => source.svid.value?.id === WEB, "the identity", tick(50));
});

test("a data folder that cannot be had is an error with the next step", async () => {
  const file = join(folder.dir, "a-file");
  writeFileSync(file, "");
  await assert.rejects(start({ dataDir: join(file, "data") }), (error: EveryhopError) => {
    assert.deepEqual([error.code, /dataDir/.test(error.hint ?? "")], ["storage-failed", true]);
    return true;
  });
});

test("a socket that another agent listens on is not taken from it", async () => {
  await start();
  await assert.rejects(
    start({ dataDir: join(folder.dir, "other"), joinToken: null }),
    (error: EveryhopError) => error.code === "unauthenticated",
  );
  server.state.token = "token-2";
  await assert.rejects(
    start({ dataDir: join(folder.dir, "other"), joinToken: "token-2" }),
    (error: EveryhopError) => error.code === "port-in-use",
  );
});
