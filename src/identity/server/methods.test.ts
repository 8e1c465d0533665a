import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import { Node } from "../../gen/everyhop/node/node_pb.js";
import { Health } from "../../gen/grpc/health/health_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { LocalAuthority } from "../../gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { TrustDomain } from "../../gen/spire/api/server/trustdomain/v1/trustdomain_pb.js";
import { Callers } from "./callers.ts";
import { id, svidOf, testKey, testServer, trustDomain } from "./fixture.ts";
import { METHODS } from "./methods.ts";

const SERVICES = [Agent, Bundle, Entry, SVID, LocalAuthority, TrustDomain, Node, Admin, Health];
const paths = SERVICES.flatMap((service) => service.methods.map(({ name }) => `${service.typeName}/${name}`));

test("every method of every service is in the table", () => {
  assert.deepEqual(
    paths.filter((path) => !METHODS.has(path)),
    [],
  );
});

test("the table agrees with SPIRE's policy", () => {
  const of = (wanted: string) =>
    [...METHODS].filter(([, { callers }]) => callers.join() === wanted).map(([path]) => path.split("/")[1]);
  assert.deepEqual(of("any"), ["AttestAgent", "GetBundle"]);
  assert.deepEqual(of("agent"), [
    "RenewAgent",
    "PostStatus",
    "GetAuthorizedEntries",
    "SyncAuthorizedEntries",
    "BatchNewX509SVID",
    "NewJWTSVID",
    "BatchNewWITSVID",
    "Watch",
  ]);
  assert.deepEqual(of("downstream"), ["PublishJWTAuthority", "PublishWITAuthority", "NewDownstreamX509CA"]);
  assert.deepEqual(of("local,admin,agent"), ["GetFederatedBundle"]);
});

test("a method that is not in the table is denied to everyone", async (t) => {
  const { registry, store, clock } = await testServer(t);
  const callers = new Callers({ registry, store, clock, roles: [] });
  const remote = { kind: "remote", address: "", chain: [], svid: null, fault: null } as const;
  await assert.rejects(
    callers.authorize("some.Service/Method", { kind: "local", process: null }),
    /authorization denied/,
  );
  await assert.rejects(callers.authorize("some.Service/Method", remote), /authorization denied/);
});

test("nobody, a workload and an agent may call over the network what the table says, and nothing else", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const key = testKey();
  const entryId = await server.entry(id("/web"), agent.id);
  const { results } = await server.remote(SVID, agent).batchNewX509SVID({ params: [{ entryId, csr: key.csr }] });
  const workload = svidOf(results[0]?.svid?.certChain ?? [], key);
  const { registry, store, clock } = server;
  const callers = new Callers({ registry, store, clock, roles: [] });
  const remote = (serial: string, of: typeof agent.id) =>
    ({
      kind: "remote",
      address: "",
      chain: [],
      svid: { ok: true, id: of, trustDomain, leaf: {} as never, serial, notBeforeMs: 0, notAfterMs: agent.notAfter },
      fault: null,
    }) as const;
  const allowed = async (caller: Parameters<Callers["authorize"]>[1]) => {
    const answers = await Promise.allSettled([...METHODS.keys()].map((path) => callers.authorize(path, caller)));
    return [...METHODS.keys()].filter((_path, index) => answers[index]?.status === "fulfilled");
  };
  const withClass = (name: string) =>
    [...METHODS].filter(([, { callers: of }]) => of.includes(name as never)).map(([path]) => path);
  assert.deepEqual(
    await allowed({ kind: "remote", address: "", chain: [], svid: null, fault: null }),
    withClass("any"),
  );
  assert.deepEqual(await allowed(remote(workload.serial, workload.id)), withClass("any"));
  assert.deepEqual(
    (await allowed(remote(agent.serial, agent.id))).sort(),
    [...withClass("any"), ...withClass("agent")].sort(),
  );
  assert.deepEqual(
    (await allowed({ kind: "local", process: null })).sort(),
    [...withClass("any"), ...withClass("local")].sort(),
  );
});

test("an admin entry opens the admin methods, over the network too; it ends with the entry", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const key = testKey();
  const entryId = await server.entry(id("/ops"), agent.id);
  const { results } = await server.remote(SVID, agent).batchNewX509SVID({ params: [{ entryId, csr: key.csr }] });
  const entries = server.remote(Entry, svidOf(results[0]?.svid?.certChain ?? [], key));
  const denied = (error: { code: number }) => error.code === status.PERMISSION_DENIED;
  await assert.rejects(entries.listEntries({}), denied);
  await server.registry.updateEntry(entryId, (entry) => ({ ...entry, admin: true }));
  assert.equal((await entries.listEntries({})).entries.length, 1);
  await assert.rejects(server.remote(Admin, null).status({}), denied);
  await server.registry.deleteEntry(entryId);
  await assert.rejects(entries.listEntries({}), denied);
});

test("what has no handler is not implemented, and only said to who may call it", async (t) => {
  const server = await testServer(t);
  await assert.rejects(server.local(SVID).mintWITSVID({}), { code: status.UNIMPLEMENTED });
  await assert.rejects(server.remote(SVID, null).mintWITSVID({}), { code: status.PERMISSION_DENIED });
});
