import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { anyPack, anyUnpack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Metadata, type ServiceError, status as Status } from "@grpc/grpc-js";
import { without } from "../../../test/peers.ts";
import { Cell } from "../../core/base/cell.ts";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId, sidecarId, type TrustDomain } from "../../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../../core/spiffe/svid.ts";
import { testCa } from "../../core/x509/fixture.ts";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { API } from "../../gen/spiffe/broker/api_pb.js";
import { silentLog } from "../../io/log.ts";
import { parseStat } from "../../io/process.ts";
import { makeClient } from "../../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../../io/rpc/channel.ts";
import { brokerMetadata, pidReference, watchBroker } from "../../workload/broker.ts";
import type { RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { FakeServer, TRUST_DOMAIN } from "./server-fixture.ts";

const PAYMENTS = parseSpiffeId("spiffe://example.com/ns/shop/sa/payments");
const HOUR_MS = 3_600_000;

let clock: FakeClock;
let server: FakeServer;
let agent: RunningAgent;
const folder = testFolder();
const open: { close(): unknown }[] = [];
const children: ChildProcess[] = [];

before(async () => {
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  await server.listen();
  agent = await startTestAgent(server, folder.dir, { brokerListen: { host: "127.0.0.1", port: 0 } });
});
afterEach(() => {
  for (const one of open.splice(0)) {
    one.close();
  }
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
  }
});
after(async () => {
  await agent.close();
  await server.close();
  folder.remove();
});

/** Starts a process and waits until it is the program it will be. */
async function run(
  command: string,
  ...args: string[]
): Promise<{ child: ChildProcess; pid: number; selector: string }> {
  const child = spawn(command, args, { stdio: ["pipe", "ignore", "inherit"] });
  children.push(child);
  await new Promise((resolve, reject) => child.once("spawn", resolve).once("error", reject));
  const pid = child.pid as number;
  const { startTime } = parseStat(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? {};
  return { child, pid, selector: `unix:process:${pid}:${startTime}` };
}

async function entitle(...selectors: readonly string[]): Promise<void> {
  server.setEntries({ id: `e-${selectors.join()}`, spiffeId: PAYMENTS, selectors });
  await until(() => agent.cache.entries.has(`e-${selectors.join()}`) && agent.cache.svidCount === 1, "the entry");
}

const bundles = (): X509Bundles => new Map<TrustDomain, readonly Uint8Array[]>([[TRUST_DOMAIN, [server.ca.der]]]);

function sidecar(svid: X509Svid | null = server.sign(sidecarId(TRUST_DOMAIN), HOUR_MS)) {
  return { svid: new Cell(svid), bundles: new Cell<X509Bundles>(bundles()) };
}

function watch(pid: number, own = sidecar()) {
  const source = watchBroker({
    brokerSocket: agent.brokerSocket,
    own,
    workload: { pid },
    spiffeId: PAYMENTS,
    log: silentLog,
    clock,
    random: () => 0,
  });
  open.push(source);
  return source;
}

/** A client with any certificate, which trusts any agent. */
function client(svid: X509Svid | null, target = agent.brokerSocket.replace("unix://", "unix:")) {
  const credentials = spiffeCredentials({
    svid: svid === null ? null : new Cell<X509Svid | null>(svid),
    authorities: new Cell<readonly Uint8Array[]>([server.ca.der]),
    refuse: () => null,
  });
  const made = makeClient(API, target, credentials, {
    ...SPIFFE_CHANNEL_OPTIONS,
    "grpc.use_local_subchannel_pool": 1,
  });
  open.push(made);
  return made;
}

const asBroker = () => client(server.sign(sidecarId(TRUST_DOMAIN), HOUR_MS));

async function failure(ask: {
  on(event: "error", listener: (error: ServiceError) => void): unknown;
  resume(): unknown;
  cancel(): void;
}): Promise<{ code: number; details: string; reason: string | undefined }> {
  const error = await new Promise<ServiceError>((resolve) => {
    ask.on("error", resolve);
    ask.resume();
  });
  ask.cancel();
  const bytes = error.metadata?.get("grpc-status-details-bin")[0];
  const any = Buffer.isBuffer(bytes) ? fromBinary(StatusSchema, bytes).details[0] : undefined;
  const info = any === undefined ? undefined : anyUnpack(any, ErrorInfoSchema);
  if (info !== undefined) {
    assert.equal(info.domain, "spiffe.io");
  }
  return { code: error.code, details: error.details, reason: info?.reason };
}

test("a sidecar gets the identity of the process it names, as long as that lives", async () => {
  const { child, pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const source = watch(pid);
  await until(() => source.svid.value?.id === PAYMENTS, "the identity");
  child.kill("SIGKILL");
  await until(
    () => source.state.value.kind === "denied",
    "the end",
    () => clock.advance(50),
  );
  assert.equal(source.svid.value, null);
});

test("over TCP a broker gets the same, by its SVID alone, as long as the process lives", async () => {
  const { child, pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const broker = client(server.sign(sidecarId(TRUST_DOMAIN), HOUR_MS), agent.brokerListen ?? "");
  const asked = { metadata: brokerMetadata() };
  const stream = broker.subscribeToX509SVID({ reference: pidReference(pid) }, asked);
  const { svids } = await new Promise<{ svids: { spiffeId: string }[] }>((resolve) => stream.once("data", resolve));
  assert.deepEqual(
    svids.map(({ spiffeId }) => spiffeId),
    [PAYMENTS],
  );
  const ended = failure(stream);
  child.kill("SIGKILL");
  let over = false;
  void ended.then(() => {
    over = true;
  });
  await until(
    () => over,
    "its end",
    () => clock.advance(50),
  );
  assert.deepEqual([(await ended).code, (await ended).reason], [Status.NOT_FOUND, "WORKLOAD_NOT_FOUND"]);
});

test("over TCP nobody is let in without an SVID, without the header, or by another ID than a broker's", async () => {
  const { pid } = await run("sleep", "60");
  const reference = pidReference(pid);
  const other = server.sign("spiffe://example.com/other", HOUR_MS);
  const cases: readonly (readonly [X509Svid | null, Metadata, number])[] = [
    [null, brokerMetadata(), Status.UNAVAILABLE],
    [other, brokerMetadata(), Status.PERMISSION_DENIED],
    [server.sign(sidecarId(TRUST_DOMAIN), HOUR_MS), new Metadata(), Status.INVALID_ARGUMENT],
  ];
  for (const [svid, metadata, code] of cases) {
    const stream = client(svid, agent.brokerListen ?? "").subscribeToX509SVID({ reference }, { metadata });
    assert.equal((await failure(stream)).code, code);
  }
});

test("an identity comes as soon as it is registered, and goes when it is withdrawn", async () => {
  const { pid, selector } = await run("sleep", "60");
  await entitle("unix:uid:99999");
  const source = watch(pid);
  await until(() => source.state.value.kind === "denied", "no identity");
  await entitle(selector);
  await until(
    () => source.svid.value?.id === PAYMENTS,
    "the identity",
    () => clock.advance(20),
  );
  await entitle("unix:uid:99999");
  await until(() => source.svid.value === null, "its end");
});

test("the identity ends when the process becomes another program", async () => {
  const { child, pid, selector } = await run("sh", "-c", "read line; exec sleep 60");
  await entitle(selector, `unix:path:${readlinkSync(`/proc/${pid}/exe`)}`);
  const source = watch(pid);
  await until(() => source.svid.value?.id === PAYMENTS, "the identity");
  child.stdin?.write("go\n");
  await until(
    () => source.svid.value === null,
    "its end",
    () => clock.advance(20),
  );
});

test("when the sidecar's own identity rotates, what it holds stays", async () => {
  const { pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const own = sidecar();
  const source = watch(pid, own);
  await until(() => source.svid.value !== null, "the identity");
  const seen: (X509Svid | null)[] = [];
  source.svid.watch((svid) => seen.push(svid));
  const connections = agent.connections().broker;
  own.svid.set(server.sign(sidecarId(TRUST_DOMAIN), HOUR_MS));
  await until(() => agent.connections().broker === connections, "the new connection took the old one's place");
  assert.deepEqual(seen, []);
  own.svid.set(null);
});

test("a connection ends when the certificate it began with expires", async () => {
  const { pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const stream = client(server.sign(sidecarId(TRUST_DOMAIN), 4_000)).subscribeToX509SVID(
    { reference: pidReference(pid) },
    { metadata: brokerMetadata() },
  );
  await new Promise((resolve) => stream.once("data", resolve));
  const ended = failure(stream);
  clock.advance(4_500);
  assert.equal((await ended).code, Status.UNAVAILABLE);
});

test("who has no identity of a broker gets nothing", async () => {
  const { pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const ask = (svid: X509Svid | null) =>
    failure(client(svid).subscribeToX509SVID({ reference: pidReference(pid) }, { metadata: brokerMetadata() }));
  const other = server.sign("spiffe://example.com/ns/shop/sa/printer", HOUR_MS);
  assert.equal((await ask(other)).code, Status.PERMISSION_DENIED);
  const now = clock.now();
  const strange = testCa("strange", { notBeforeMs: now - 24 * HOUR_MS, notAfterMs: now + 24 * HOUR_MS });
  for (const [what, svid] of [
    ["none", null],
    ["another CA's", server.sign(sidecarId(TRUST_DOMAIN), HOUR_MS, { ca: strange })],
    ["an expired one", server.sign(sidecarId(TRUST_DOMAIN), -1_000)],
  ] as const) {
    assert.equal((await ask(svid)).code, Status.UNAVAILABLE, what);
  }
});

test("requests that are not to the letter are InvalidArgument, with the reason", async () => {
  const broker = asBroker();
  const ask = (reference: Parameters<typeof broker.subscribeToX509SVID>[0]["reference"], metadata = brokerMetadata()) =>
    failure(broker.subscribeToX509SVID(reference === undefined ? {} : { reference }, { metadata }));
  assert.equal((await ask(pidReference(1), new Metadata())).code, Status.INVALID_ARGUMENT);
  const wrongType = { reference: anyPack(StringValueSchema, create(StringValueSchema, { value: "1" })) };
  for (const reference of [undefined, {}, wrongType, pidReference(0), pidReference(-1)]) {
    const { code, reason } = await ask(reference);
    assert.deepEqual([code, reason], [Status.INVALID_ARGUMENT, "WORKLOAD_REFERENCE_INVALID"]);
  }
});

test("a process that is not there is NotFound, one without an entry PermissionDenied, each with its reason", async () => {
  const { child, pid } = await run("sleep", "60");
  await entitle("unix:uid:99999");
  const broker = asBroker();
  const ask = (named: number) =>
    failure(broker.subscribeToX509SVID({ reference: pidReference(named) }, { metadata: brokerMetadata() }));
  const entitled = await ask(pid);
  assert.deepEqual([entitled.code, entitled.reason], [Status.PERMISSION_DENIED, "WORKLOAD_NOT_ENTITLED"]);
  child.kill("SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
  const gone = await ask(pid);
  assert.deepEqual([gone.code, gone.reason], [Status.NOT_FOUND, "WORKLOAD_NOT_FOUND"]);
});

test("a process of another network namespace is none of the sidecar's", {
  skip: without("root", "netns"),
}, async () => {
  const { pid, selector } = await run("unshare", "--net", "sleep", "60");
  await entitle(selector);
  await until(() => readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "sleep", "the namespace");
  const { code, reason } = await failure(
    asBroker().subscribeToX509SVID({ reference: pidReference(pid) }, { metadata: brokerMetadata() }),
  );
  assert.deepEqual([code, reason], [Status.NOT_FOUND, "WORKLOAD_NOT_FOUND"]);
});

test("bundles and JWT-SVIDs of the named process come too", async () => {
  const { pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const broker = asBroker();
  const request = { reference: pidReference(pid) };
  const options = { metadata: brokerMetadata() };
  const first = <T>(stream: { once(event: "data", listener: (message: T) => void): unknown }) =>
    new Promise<T>((resolve) => stream.once("data", resolve));
  const x509 = broker.subscribeToX509Bundles(request, options).on("error", () => {});
  const jwt = broker.subscribeToJWTBundles(request, options).on("error", () => {});
  assert.deepEqual(Object.keys((await first(x509)).bundles), ["spiffe://example.com"]);
  assert.deepEqual(Object.keys((await first(jwt)).bundles), ["spiffe://example.com"]);
  const { svids } = await broker.fetchJWTSVID({ ...request, audience: ["shop"] }, options);
  assert.deepEqual(
    svids.map(({ spiffeId }) => spiffeId),
    [PAYMENTS],
  );
  x509.cancel();
  jwt.cancel();
});

test("a sidecar asks nobody but an agent of its own trust domain", async () => {
  const { pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const now = clock.now();
  const strange = testCa("strange", { notBeforeMs: now - 24 * HOUR_MS, notAfterMs: now + 24 * HOUR_MS });
  const own = sidecar();
  own.bundles.set(new Map([[TRUST_DOMAIN, [strange.der]]]));
  const source = watch(pid, own);
  await until(() => source.state.value.kind === "away", "the refusal");
  assert.equal(source.svid.value, null);
});

test("streams that ended hold no process and no descriptor", async () => {
  const { pid, selector } = await run("sleep", "60");
  await entitle(selector);
  const broker = asBroker();
  const subscribe = async () => {
    const stream = broker.subscribeToX509SVID({ reference: pidReference(pid) }, { metadata: brokerMetadata() });
    stream.on("error", () => {});
    await new Promise((resolve) => stream.once("data", resolve));
    return stream;
  };
  await subscribe();
  await until(() => agent.connections().broker === 1 && agent.watchedProcesses() === 1, "those before are gone");
  const before = pidfds();
  const streams = await Promise.all(Array.from({ length: 20 }, subscribe));
  // While a process is attested one more may be open for a moment.
  await until(() => pidfds() === before + 20, "each stream holds one");
  for (const stream of streams) {
    stream.cancel();
  }
  await until(() => agent.watchedProcesses() === 1 && pidfds() === before, "all streams are gone");
});

function pidfds(): number {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target.includes("pidfd")).length;
}
