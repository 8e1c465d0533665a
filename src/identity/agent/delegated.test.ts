import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";
import { type ClientReadableStream, credentials, type ServiceError, status as Status } from "@grpc/grpc-js";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId } from "../../core/spiffe/id.ts";
import {
  DelegatedIdentity,
  type SubscribeToX509SVIDsResponse,
} from "../../gen/spire/api/agent/delegatedidentity/v1/delegatedidentity_pb.js";
import { parseStat } from "../../io/process.ts";
import { makeClient } from "../../io/rpc/adapter.ts";
import type { RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until as untilTime } from "./fixture.ts";
import { type FakeEntry, FakeServer } from "./server-fixture.ts";

const UID = `unix:uid:${process.getuid?.()}`;
const DELEGATE = "spiffe://example.com/node-proxy";
const WEB = "spiffe://example.com/ns/shop/sa/web";
const PODS = [{ type: "k8s", value: "ns:shop" }];
const ME: FakeEntry = { id: "me", spiffeId: DELEGATE, selectors: [UID], createdAt: 1 };
const SHOP: FakeEntry = {
  id: "shop",
  spiffeId: WEB,
  selectors: ["k8s:ns:shop"],
  createdAt: 2,
  hint: "internal",
  federatesWith: ["other.org"],
};
const ADMIN: FakeEntry = { id: "admin", spiffeId: `${WEB}-admin`, selectors: ["k8s:ns:shop"], admin: true };
const DOWN: FakeEntry = { id: "down", spiffeId: `${WEB}-down`, selectors: ["k8s:ns:shop"], downstream: true };

let clock: FakeClock;
let server: FakeServer;
let agent: RunningAgent;
let client: ReturnType<typeof connect>;
const folder = testFolder();
const children: ChildProcess[] = [];
const streams: { cancel(): void }[] = [];
const until = (condition: () => boolean, what: string) => untilTime(condition, what, () => clock.advance(20));

const connect = (running: RunningAgent) =>
  makeClient(DelegatedIdentity, running.adminSocket.replace("unix://", "unix:"), credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });

async function set(...entries: readonly FakeEntry[]): Promise<void> {
  server.setEntries(...entries);
  await until(
    () => entries.every(({ id }) => agent.cache.entries.has(id)) && agent.cache.svidCount === entries.length,
    "the entries",
  );
}

before(async () => {
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  server.federated.set("other.org", [server.ca.der]);
  await server.listen();
  agent = await startTestAgent(server, folder.dir, { authorizedDelegates: [parseSpiffeId(DELEGATE)] });
  client = connect(agent);
  await set(ME, SHOP, ADMIN, DOWN);
});
afterEach(async () => {
  for (const stream of streams.splice(0)) {
    stream.cancel();
  }
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
  }
  await set(ME, SHOP, ADMIN, DOWN);
});
after(async () => {
  client.close();
  await agent.close();
  await server.close();
  folder.remove();
});

function follow<T>(stream: ClientReadableStream<T>) {
  streams.push(stream);
  const messages: T[] = [];
  let failure: string | null = null;
  stream.on("data", (message) => messages.push(message));
  stream.on("error", ({ code, details }: ServiceError) => {
    failure = `${Status[code]}: ${details}`;
  });
  return {
    async message(index: number): Promise<T> {
      await until(() => messages.length > index || failure !== null, `message ${index}`);
      assert.equal(failure, null);
      return messages[index] as T;
    },
    async failure(): Promise<string | null> {
      await until(() => failure !== null, "the end");
      return failure;
    },
  };
}

const idsOf = ({ x509Svids }: SubscribeToX509SVIDsResponse) =>
  x509Svids.map(({ x509Svid }) => `spiffe://${x509Svid?.id?.trustDomain}${x509Svid?.id?.path}`);
const fails = (expected: string) => (error: ServiceError) => {
  assert.equal(`${Status[error.code]}: ${error.details}`, expected);
  return true;
};

test("a delegate gets SVIDs by selectors, never those of administrators or downstream servers", async () => {
  const first = await follow(client.subscribeToX509SVIDs({ selectors: PODS })).message(0);
  assert.deepEqual([idsOf(first), first.federatesWith], [[WEB], ["spiffe://other.org"]]);
  const [{ x509Svid, x509SvidKey }] = first.x509Svids as [SubscribeToX509SVIDsResponse["x509Svids"][number]];
  assert.deepEqual([x509Svid?.certChain.length, x509Svid?.hint, x509SvidKey.length > 0], [1, "internal", true]);
  const svid = agent.cache.contents().svids.get("shop")?.svid;
  assert.equal(x509Svid?.expiresAt, BigInt(Math.floor((svid?.notAfter ?? 0) / 1_000)));
});

test("what nobody registered is an empty list, and fills as entries come", async () => {
  const stream = follow(client.subscribeToX509SVIDs({ selectors: [{ type: "k8s", value: "ns:new" }] }));
  assert.deepEqual((await stream.message(0)).x509Svids, []);
  server.addEntry({ id: "new", spiffeId: `${WEB}-new`, selectors: ["k8s:ns:new"] });
  assert.deepEqual(idsOf(await stream.message(1)), [`${WEB}-new`]);
});

test("a delegate gets a process's SVIDs by its id, as long as that lives", async () => {
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  children.push(child);
  await new Promise((resolve) => child.once("spawn", resolve));
  const { startTime } = parseStat(readFileSync(`/proc/${child.pid}/stat`, "utf8")) ?? {};
  await set(ME, { id: "child", createdAt: 2, spiffeId: WEB, selectors: [`unix:process:${child.pid}:${startTime}`] });
  const stream = follow(client.subscribeToX509SVIDs({ pid: child.pid as number }));
  assert.deepEqual(idsOf(await stream.message(0)), [DELEGATE, WEB]);
  const { svids } = await client.fetchJWTSVIDs({ audience: ["shop"], pid: child.pid as number });
  assert.deepEqual(
    svids.map(({ id }) => id?.path),
    ["/node-proxy", "/ns/shop/sa/web"],
  );
  child.kill("SIGKILL");
  assert.equal(await stream.failure(), "INTERNAL: workload attestation failed");
  await until(() => agent.watchedProcesses() === 0, "nothing is watched any more");
});

test("bundles are those of every trust domain, by SPIFFE ID", async () => {
  const x509 = follow(client.subscribeToX509Bundles({}));
  const { caCertificates } = await x509.message(0);
  assert.deepEqual(Object.keys(caCertificates).sort(), ["spiffe://example.com", "spiffe://other.org"]);
  const { bundles } = await follow(client.subscribeToJWTBundles({})).message(0);
  assert.deepEqual(Object.keys(bundles).sort(), ["spiffe://example.com", "spiffe://other.org"]);
  const own = JSON.parse(Buffer.from(bundles["spiffe://example.com"] as Uint8Array).toString());
  assert.deepEqual(own.keys.length, 1);
  server.rotateCa("keep");
  const next = await x509.message(1);
  const before = caCertificates["spiffe://example.com"] as Uint8Array;
  assert.ok((next.caCertificates["spiffe://example.com"] as Uint8Array).length > before.length);
});

test("JWT-SVIDs come with their times", async () => {
  const { svids } = await client.fetchJWTSVIDs({ audience: ["shop"], selectors: PODS });
  const [svid] = svids;
  assert.deepEqual([svids.length, svid?.id?.path, svid?.hint], [1, "/ns/shop/sa/web", "internal"]);
  assert.ok(svid !== undefined && svid.issuedAt > 0n && svid.expiresAt > svid.issuedAt);
});

const PID = process.pid;
const REFUSED: readonly (readonly [string, object, string])[] = [
  [
    "selectors and a process id",
    { selectors: PODS, pid: PID },
    "INVALID_ARGUMENT: must provide either selectors or non-zero PID, but not both",
  ],
  ["neither of them", {}, "INVALID_ARGUMENT: must provide either selectors or non-zero PID, but not both"],
  [
    "a selector of no type",
    { selectors: [{ type: "", value: "x" }] },
    "INVALID_ARGUMENT: could not parse provided selectors",
  ],
  ["a negative process id", { pid: -1 }, "INVALID_ARGUMENT: the process id must be positive"],
  ["a process that is not there", { pid: 0x7fff_fff0 }, "INTERNAL: workload attestation failed"],
];
for (const [name, request, expected] of REFUSED) {
  test(`refused: ${name}`, async () => {
    assert.equal(await follow(client.subscribeToX509SVIDs(request)).failure(), expected);
    await assert.rejects(client.fetchJWTSVIDs({ audience: ["shop"], ...request }), fails(expected));
  });
}

test("refused: a JWT-SVID without audience, or for what has no identity", async () => {
  await assert.rejects(
    client.fetchJWTSVIDs({ selectors: PODS }),
    fails("INVALID_ARGUMENT: audience must be specified"),
  );
  const selectors = [{ type: "k8s", value: "ns:none" }];
  const none = fails("PERMISSION_DENIED: no identity issued");
  await assert.rejects(client.fetchJWTSVIDs({ audience: ["a"], selectors }), none);
  server.setEntries(ME, ADMIN);
  await until(() => !agent.cache.entries.has("shop"), "only an administrator is left");
  await assert.rejects(client.fetchJWTSVIDs({ audience: ["a"], selectors: PODS }), none);
});

test("who is no delegate gets nothing, and who is one no longer loses its streams", async () => {
  const stream = follow(client.subscribeToX509SVIDs({ selectors: PODS }));
  const bundles = follow(client.subscribeToX509Bundles({}));
  await Promise.all([stream.message(0), bundles.message(0)]);
  const other = { ...ME, id: "other", spiffeId: "spiffe://example.com/somebody" };
  server.setEntries(other, SHOP);
  const denied = "PERMISSION_DENIED: caller not configured as an authorized delegate";
  assert.deepEqual([await stream.failure(), await bundles.failure()], [denied, denied]);
  await assert.rejects(client.fetchJWTSVIDs({ audience: ["a"], selectors: PODS }), fails(denied));
  server.setEntries(SHOP);
  await until(() => !agent.cache.entries.has("other"), "no entry is left");
  const none = "PERMISSION_DENIED: no identity issued";
  assert.equal(await follow(client.subscribeToX509SVIDs({ selectors: PODS })).failure(), none);
});

test("the socket is its group's too where somebody may act for others", () => {
  assert.equal(statSync(agent.adminSocket.replace("unix://", "")).mode & 0o777, 0o660);
});
