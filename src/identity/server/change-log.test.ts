import assert from "node:assert/strict";
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { ChangeLog, type ChangeRecord } from "./change-log.ts";
import { id, svidOf, type TestServer, testKey, testServer, wire, wireSelector } from "./fixture.ts";

async function changes(server: TestServer, limit = 0): Promise<readonly ChangeRecord[]> {
  const document = toJson(StructSchema, await server.local(Admin).auditChanges({ limit })) as unknown as {
    changes: ChangeRecord[];
  };
  return document.changes;
}

function fileOf(server: TestServer): string {
  const dir = join(dirname(server.adminSocket), "changes");
  return join(dir, readdirSync(dir)[0] ?? "");
}

const short = ({ method, code, failed }: ChangeRecord) => [method.split("/")[1], code, failed];

async function busy(t: TestContext): Promise<TestServer> {
  const server = await testServer(t);
  await server.local(Agent).createJoinToken({ ttl: 60, token: "hidden-token" });
  const entry = { spiffeId: wire(id("/web")), parentId: wire(id("/node")), selectors: [wireSelector("unix:uid:1")] };
  await server.local(Entry).batchCreateEntry({ entries: [entry, entry, {}] });
  await server.local(Entry).listEntries({});
  await assert.rejects(server.local(Agent).banAgent({ id: wire(id("/spire/agent/x/y")) }));
  return server;
}

test("every change is on record with who asked, for what, and what came of it; reads are not", async (t) => {
  const server = await busy(t);
  const found = await changes(server);
  assert.deepEqual(found.map(short), [
    ["CreateJoinToken", "OK", 0],
    ["BatchCreateEntry", "OK", 2],
    ["BanAgent", "NOT_FOUND", 0],
  ]);
  const [token, entry] = found;
  assert.deepEqual(token?.caller, { kind: "local", pid: process.pid, uid: process.getuid?.() });
  assert.equal(token?.time, new Date(server.clock.now()).toISOString());
  assert.match(entry?.request ?? "", /"path":"\/web"/);
  assert.deepEqual((await changes(server, 1)).map(short), [["BanAgent", "NOT_FOUND", 0]]);
  assert.doesNotMatch(readFileSync(fileOf(server), "utf8"), /hidden-token/, "no secret");
});

test("a call over the network is on record with the identity that was proven; one that was refused is not a change", async (t) => {
  const server = await testServer(t);
  const key = testKey({ uris: [id("/ops")] });
  const { svid } = await server.local(SVID).mintX509SVID({ csr: key.csr });
  const ops = server.remote(Entry, svidOf(svid?.certChain ?? [], key));
  await assert.rejects(ops.batchDeleteEntry({ ids: ["x"] }), { code: status.PERMISSION_DENIED });
  await server.registry.createEntry({
    spiffeId: id("/ops"),
    parentId: id("/node"),
    selectors: ["unix:uid:1"],
    admin: true,
  });
  await ops.batchDeleteEntry({ ids: ["x"] });
  const found = await changes(server);
  assert.deepEqual(found.map(short).slice(1), [["BatchDeleteEntry", "OK", 1]]);
  assert.deepEqual(found[1]?.caller, { kind: "remote", spiffeId: id("/ops"), address: "127.0.0.1" });
});

test("what cannot be put on record is not done", async (t) => {
  const server = await busy(t);
  const before = server.registry.entries().length;
  await server.changes.close();
  const entry = { spiffeId: wire(id("/db")), parentId: wire(id("/node")), selectors: [wireSelector("unix:uid:2")] };
  await assert.rejects(server.local(Entry).batchCreateEntry({ entries: [entry] }), { code: status.INTERNAL });
  assert.equal(server.registry.entries().length, before);
});

test("a line that was changed, or taken out, is found, and nothing is changed on top of it", async (t) => {
  for (const tamper of [
    (text: string) => text.replace("/web", "/wob"),
    (text: string) => text.split("\n").toSpliced(1, 1).join("\n"),
    (text: string) => text.split("\n").toSpliced(0, 1).join("\n"),
  ]) {
    const server = await busy(t);
    const file = fileOf(server);
    writeFileSync(file, tamper(readFileSync(file, "utf8")));
    await assert.rejects(changes(server), { code: status.INTERNAL, details: /is not as it was written/ });
    await assert.rejects(ChangeLog.open({ dir: dirname(file), clock: server.clock }), { code: "storage-failed" });
  }
});

test("where the server ended in the middle, the change is on record without its outcome", async (t) => {
  const server = await busy(t);
  const file = fileOf(server);
  const lines = readFileSync(file, "utf8").trimEnd().split("\n");
  writeFileSync(file, `${lines.slice(0, -1).join("\n")}\n`);
  appendFileSync(file, lines.at(-1)?.slice(0, 20) ?? "");
  assert.deepEqual((await changes(server)).map(short).at(-1), ["BanAgent", null, 0]);
  const again = await ChangeLog.open({ dir: dirname(file), clock: server.clock });
  await again.close();
  assert.match(readFileSync(file, "utf8"), /"kind":"repaired"/);
});
