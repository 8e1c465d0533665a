import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fromBinary, toJson } from "@bufbuild/protobuf";
import { anyUnpack, StructSchema } from "@bufbuild/protobuf/wkt";
import { credentials, Metadata, type ServiceError, status as Status } from "@grpc/grpc-js";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId, type SpiffeId } from "../../core/spiffe/id.ts";
import { Agent } from "../../gen/everyhop/agent/agent_pb.js";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { SpiffeWorkloadAPI } from "../../gen/spiffe/workload_pb.js";
import { makeLog } from "../../io/log.ts";
import { makeClient } from "../../io/rpc/adapter.ts";
import type { WorkloadAttestor } from "../attest/workload/attest.ts";
import { unixAttestor } from "../attest/workload/unix/unix.ts";
import type { RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { FakeServer } from "./server-fixture.ts";

const WEB = parseSpiffeId("spiffe://example.com/web");
const SECRET = parseSpiffeId("spiffe://example.com/secret-project");
const UID = `unix:uid:${process.getuid?.()}`;

let clock: FakeClock;
let server: FakeServer;
let agent: RunningAgent;
const lines: Record<string, unknown>[] = [];
const folder = testFolder();
const clients: { close(): void }[] = [];

const docker: WorkloadAttestor = {
  kind: "docker",
  attest: async () => {
    throw new Error("no socket");
  },
};
const environment: WorkloadAttestor = { kind: "environment", attest: async () => ["docker:env:PASSWORD=hunter2"] };

before(async () => {
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  await server.listen();
  agent = await startTestAgent(server, folder.dir, {
    attestors: [unixAttestor(() => clock.now()), docker, environment],
    log: makeLog("agent", { write: (line) => lines.push(JSON.parse(line)) }),
  });
});
after(async () => {
  for (const client of clients) {
    client.close();
  }
  await agent.close();
  await server.close();
  folder.remove();
});

async function explain(about: { pid: number } | { selectors: string[] }) {
  const client = makeClient(Agent, agent.adminSocket.replace("unix://", "unix:"), credentials.createInsecure());
  clients.push(client);
  // biome-ignore lint/suspicious/noExplicitAny: a document as its readers see it.
  return toJson(StructSchema, await client.explain(about)) as any;
}

async function entitle(...entries: readonly { id: string; spiffeId: SpiffeId; selectors: string[] }[]): Promise<void> {
  server.setEntries(...entries);
  await until(() => entries.every(({ id }) => agent.cache.entries.has(id)), "the entries");
}

function workload() {
  const client = makeClient(SpiffeWorkloadAPI, agent.socket.replace("unix://", "unix:"), credentials.createInsecure());
  clients.push(client);
  return client;
}

const header = new Metadata();
header.set("workload.spiffe.io", "true");

async function denial(): Promise<ServiceError> {
  const stream = workload().fetchX509SVID({}, { metadata: header });
  return new Promise((resolve) => {
    stream.on("error", resolve);
    stream.resume();
  });
}

test("a process is explained: what it is, what it gets, what it lacks, who looked", async () => {
  await entitle(
    { id: "web", spiffeId: WEB, selectors: [UID] },
    { id: "near", spiffeId: SECRET, selectors: [UID, "unix:path:/not/this"] },
    { id: "boxed", spiffeId: SECRET, selectors: [UID, "docker:label:a:b", "k8s:ns:x"] },
  );
  const answer = await explain({ pid: process.pid });
  assert.equal(answer.pid, process.pid);
  assert.ok(answer.selectors.includes(UID));
  assert.deepEqual([answer.matched, answer.identities], [["web"], [WEB]]);
  assert.match(answer.verdict, /entitled|svid-pending/);
  assert.equal(answer.process.uid, process.getuid?.());
  assert.deepEqual(
    answer.attestors.map(({ kind, error }: { kind: string; error: string | null }) => [kind, error]),
    [
      ["unix", null],
      ["docker", "no socket"],
      ["environment", null],
    ],
  );
  const [near, boxed] = answer.nearMisses;
  assert.deepEqual([near.entryId, near.missing], ["near", ["unix:path:/not/this"]]);
  assert.match(near.hints[0].hint, /it runs .*node, registered is \/not\/this/);
  const hints = Object.fromEntries(
    boxed.hints.map((one: { selector: string; hint: string }) => [one.selector, one.hint]),
  );
  assert.match(hints["docker:label:a:b"], /the `docker` attestor failed: no socket/);
  assert.match(hints["k8s:ns:x"], /no `k8s` attestor/);
  assert.deepEqual([answer.agent.spiffeId, answer.agent.entries], [agent.own.value.svid.id, 3]);
  assert.ok(Date.parse(answer.agent.syncedAt) > 0);
});

test("so are selectors of a process that is not there", async () => {
  const answer = await explain({ selectors: ["unix:uid:77", "unix:path:/not/this"] });
  assert.deepEqual([answer.pid, answer.matched, answer.verdict], [null, [], "no-match"]);
  assert.equal(answer.nearMisses[0].entryId, "near");
  await assert.rejects(explain({ selectors: ["nonsense"] }), { code: Status.INVALID_ARGUMENT });
  await assert.rejects(explain({ pid: -1 }), { code: Status.INVALID_ARGUMENT });
  await assert.rejects(explain({ pid: 2 ** 30 }), { code: Status.NOT_FOUND });
});

test("a workload that is denied learns what it is itself, and nothing of any entry; the log has all but secrets", async () => {
  await entitle({
    id: "hidden",
    spiffeId: SECRET,
    selectors: [UID, "unix:path:/secret-path", "k8s:ns:secret-namespace"],
  });
  await until(() => agent.cache.entries.size === 1, "the others to go");
  lines.length = 0;
  clock.advance(120_000);
  const error = await denial();
  assert.deepEqual([error.code, error.details], [Status.PERMISSION_DENIED, "no identity issued"]);
  const bytes = error.metadata.get("grpc-status-details-bin")[0] as Buffer;
  const info = anyUnpack(fromBinary(StatusSchema, bytes).details[0] as never, ErrorInfoSchema);
  assert.deepEqual([info?.reason, info?.domain], ["NO_IDENTITY_ISSUED", "everyhop.dev"]);
  assert.equal(info?.metadata["pid"], String(process.pid));
  assert.equal(info?.metadata["agent"], agent.own.value.svid.id);
  assert.equal(info?.metadata["failedAttestors"], "docker");
  assert.ok(info?.metadata["selectors"]?.split(" ").includes(UID));
  for (const hidden of ["secret", "hidden", "hunter2", "parent:"]) {
    assert.ok(!bytes.includes(hidden), `\`${hidden}\` reached the workload`);
  }
  const told = lines.filter(({ message }) => /no identity for a workload/.test(String(message)));
  assert.equal(told.length, 1);
  const line = JSON.stringify(told[0]);
  assert.match(line, /"entryId":"hidden"/);
  assert.match(line, /unix:path:\/secret-path: it runs/);
  assert.match(line, /docker: no socket/);
  assert.ok(line.includes("docker:env:PASSWORD=…") && !line.includes("hunter2"));
  await denial();
  assert.equal(
    lines.filter(({ message }) => /no identity for a workload/.test(String(message))).length,
    1,
    "told once",
  );
});

test("a token is denied in the same words", async () => {
  await assert.rejects(workload().fetchJWTSVID({ audience: ["a"] }, { metadata: header }), (error: ServiceError) => {
    assert.deepEqual([error.code, error.details], [Status.PERMISSION_DENIED, "no identity issued"]);
    return (error.metadata.get("grpc-status-details-bin")[0] as Buffer).includes("NO_IDENTITY_ISSUED");
  });
});

test("where every attestor fails, a workload is told that alone, and its operator why", async (t) => {
  const other = testFolder();
  const own = new FakeServer(clock);
  await own.listen();
  const failing = await startTestAgent(own, other.dir, { attestors: [docker] });
  t.after(async () => {
    await failing.close();
    await own.close();
    other.remove();
  });
  const workloads = makeClient(
    SpiffeWorkloadAPI,
    failing.socket.replace("unix://", "unix:"),
    credentials.createInsecure(),
  );
  const operator = makeClient(Agent, failing.adminSocket.replace("unix://", "unix:"), credentials.createInsecure());
  clients.push(workloads, operator);
  await assert.rejects(workloads.fetchJWTSVID({ audience: ["a"] }, { metadata: header }), (error: ServiceError) => {
    assert.deepEqual([error.code, error.details], [Status.UNAVAILABLE, "workload attestation failed"]);
    return true;
  });
  await assert.rejects(operator.explain({ pid: process.pid }), /every workload attestor failed: docker: no socket/);
  assert.deepEqual(failing.attestations().get("docker"), { answered: 0, failed: 2 });
});
