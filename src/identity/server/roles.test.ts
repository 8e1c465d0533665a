import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { RIGHTS, type Right, type Role } from "../../core/entries/role.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { Callers } from "./callers.ts";
import { id, svidOf, type TestServer, testKey, testServer, trustDomain, wire, wireSelector } from "./fixture.ts";
import { METHODS } from "./methods.ts";

const TEAM = id("/ci/payments");
const role = (changes: Partial<Role> = {}): Role => ({
  name: "payments",
  members: [TEAM],
  may: ["entries:read", "entries:write", "agents:read", "agents:write", "tokens:create", "svids:mint", "kills:write"],
  under: [id("/ns/payments")],
  parents: null,
  dnsNames: [],
  ...changes,
});

async function svid(server: TestServer, spiffeId: SpiffeId): Promise<X509Svid> {
  const key = testKey({ uris: [spiffeId] });
  const { svid: made } = await server.local(SVID).mintX509SVID({ csr: key.csr, ttl: 600 });
  return svidOf(made?.certChain ?? [], key);
}

const denied = { code: status.PERMISSION_DENIED };
const entryOf = (spiffeId: SpiffeId, more: object = {}) => ({
  spiffeId: wire(spiffeId),
  parentId: wire(id("/node/a")),
  selectors: [wireSelector("unix:uid:1")],
  ...more,
});

test("a team registers under its own prefix, over mutual TLS, and nowhere else", async (t) => {
  const server = await testServer(t, { roles: [role()] });
  const foreign = await server.entry(id("/ns/orders/sa/web"), id("/node/a"));
  const entries = server.remote(Entry, await svid(server, TEAM));
  const create = async (entry: ReturnType<typeof entryOf>) =>
    (await entries.batchCreateEntry({ entries: [entry] })).results[0];
  const made = await create(entryOf(id("/ns/payments/sa/web")));
  assert.equal(made?.status?.code, status.OK);
  const own = made?.entry?.id ?? "";
  for (const refused of [
    entryOf(id("/ns/orders/sa/api")),
    entryOf(id("/ns/payments2/sa/api")),
    entryOf(id("/ns/payments/sa/api"), { admin: true }),
    entryOf(id("/ns/payments/sa/api"), { downstream: true }),
    entryOf(id("/ns/payments/sa/api"), { dnsNames: ["bank.example"] }),
  ]) {
    assert.equal((await create(refused))?.status?.code, status.PERMISSION_DENIED);
  }
  assert.deepEqual(
    (await entries.listEntries({})).entries.map((entry) => entry.id),
    [own],
    "only what it covers",
  );
  assert.equal((await entries.countEntries({})).count, 1);
  await assert.rejects(entries.getEntry({ id: foreign }), { code: status.NOT_FOUND });
  const update = async (change: object) =>
    (await entries.batchUpdateEntry({ entries: [change], inputMask: { spiffeId: true } })).results[0]?.status?.code;
  assert.equal(await update({ id: own, spiffeId: wire(id("/ns/orders/sa/x")) }), status.PERMISSION_DENIED, "out of it");
  assert.equal(
    await update({ id: foreign, spiffeId: wire(id("/ns/payments/sa/x")) }),
    status.PERMISSION_DENIED,
    "into it",
  );
  assert.equal(await update({ id: own, spiffeId: wire(id("/ns/payments/sa/y")) }), status.OK);
  const { results } = await entries.batchDeleteEntry({ ids: [foreign, own] });
  assert.deepEqual(
    results.map((result) => result.status?.code),
    [status.NOT_FOUND, status.OK],
  );
  assert.ok(server.registry.entry(foreign) !== null);
});

test("what has a subject is refused beyond the scope; what has none is refused to a limited role", async (t) => {
  const server = await testServer(t, { roles: [role({ may: RIGHTS })] });
  const team = await svid(server, TEAM);
  const agent = await server.agent();
  const agents = server.remote(Agent, team);
  assert.deepEqual((await agents.listAgents({})).agents, []);
  await assert.rejects(agents.banAgent({ id: wire(agent.id) }), denied);
  await assert.rejects(agents.getAgent({ id: wire(agent.id) }), denied);
  await assert.rejects(agents.createJoinToken({ ttl: 60, agentId: wire(id("/node/a")) }), denied);
  await agents.createJoinToken({ ttl: 60, agentId: wire(id("/ns/payments/node")) });
  const svids = server.remote(SVID, team);
  await assert.rejects(svids.mintJWTSVID({ id: wire(id("/ns/orders/x")), audience: ["a"] }), denied);
  await svids.mintJWTSVID({ id: wire(id("/ns/payments/x")), audience: ["a"] });
  await assert.rejects(svids.mintX509SVID({ csr: testKey({ uris: [id("/ns/orders/x")] }).csr }), denied);
  const named = testKey({ uris: [id("/ns/payments/x")], dnsNames: ["bank.example"] });
  await assert.rejects(svids.mintX509SVID({ csr: named.csr }), denied);
  const admin = server.remote(Admin, team);
  await assert.rejects(admin.kill({ spiffeId: id("/ns/orders/x") }), denied);
  await assert.rejects(admin.auditCertificates({}), denied);
  await assert.rejects(admin.status({}), denied);
  await assert.rejects(server.remote(Bundle, team).listFederatedBundles({}), denied);
});

test("each right opens the methods that name it, to its members alone", async (t) => {
  const server = await testServer(t);
  const { registry, store, clock } = server;
  const { id: _, ...verified } = { id: TEAM, ok: true as const, trustDomain, leaf: {} as never, serial: "1" };
  const caller = (of: SpiffeId) => {
    const proven = { ...verified, id: of, notBeforeMs: 0, notAfterMs: clock.now() + 1_000 };
    return { kind: "remote", address: "", chain: [], svid: proven, fault: null } as const;
  };
  const opened = async (right: Right, of: SpiffeId) => {
    const callers = new Callers({ registry, store, clock, roles: [role({ may: [right], under: null })] });
    const answers = await Promise.allSettled([...METHODS.keys()].map((path) => callers.authorize(path, caller(of))));
    return [...METHODS.keys()].filter((_path, index) => answers[index]?.status === "fulfilled");
  };
  const anyone = [...METHODS].filter(([, { callers: of }]) => of.includes("any")).map(([path]) => path);
  for (const right of RIGHTS) {
    const named = [...METHODS].filter(([, rule]) => rule.right === right).map(([path]) => path);
    assert.deepEqual((await opened(right, TEAM)).sort(), [...anyone, ...named].sort(), right);
    assert.deepEqual(await opened(right, id("/someone")), anyone, right);
  }
});

test("a member that is cut off, or whose certificate has expired, has no role", async (t) => {
  const server = await testServer(t, { roles: [role()] });
  const team = await svid(server, TEAM);
  const entries = server.remote(Entry, team);
  await entries.listEntries({});
  server.clock.advance(601_000);
  await assert.rejects(entries.listEntries({}), denied);
  const fresh = server.remote(Entry, await svid(server, TEAM));
  await fresh.listEntries({});
  await server.registry.kill(TEAM);
  await assert.rejects(fresh.listEntries({}));
});
