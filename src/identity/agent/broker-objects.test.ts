import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status as Status } from "@grpc/grpc-js";
import { Cell } from "../../core/base/cell.ts";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId, sidecarId, type TrustDomain } from "../../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../../core/spiffe/svid.ts";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { API, KubernetesObjectReferenceSchema } from "../../gen/spiffe/broker/api_pb.js";
import { kubeClient } from "../../io/kube.ts";
import { type FakeKube, fakeKube } from "../../io/kube-fixture.ts";
import { silentLog } from "../../io/log.ts";
import { makeClient } from "../../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../../io/rpc/channel.ts";
import { brokerMetadata, objectReference, watchBroker } from "../../workload/broker.ts";
import { KubeObjects } from "../attest/workload/k8s/objects.ts";
import { type Pod, readPod } from "../attest/workload/k8s/pod.ts";
import type { RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { FakeServer, TRUST_DOMAIN } from "./server-fixture.ts";

const CHECKOUT = parseSpiffeId("spiffe://example.com/ns/shop/sa/checkout");
const HOUR_MS = 3_600_000;
const UID = "0fa1b2c3-4d5e-6f70-8192-a3b4c5d6e7f8";
const NEXT_UID = "1fa1b2c3-4d5e-6f70-8192-a3b4c5d6e7f8";
const COLLECTION = "/apis/apps/v1/namespaces/shop/deployments";
const OBJECT = `${COLLECTION}/checkout`;
const REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const NAMED = { plural: "deployments", group: "apps", namespace: "shop", name: "checkout", uid: "" };

const deployment = (uid = UID, app = "checkout") => ({
  metadata: { name: "checkout", namespace: "shop", uid, labels: { app } },
});

let clock: FakeClock;
let server: FakeServer;
let agent: RunningAgent;
let kube: FakeKube;
let pods: readonly Pod[] = [];
const folder = testFolder();
const open: { close(): unknown }[] = [];

before(async () => {
  clock = new FakeClock(Date.now());
  kube = await fakeKube();
  server = new FakeServer(clock);
  await server.listen();
  const client = kubeClient(kube.config);
  const objects = new KubeObjects({
    kube: client,
    nodePods: async () => pods,
    clock,
    namespaceLabels: false,
    accessPolicy: "enforced",
    brokers: new Map([[sidecarId(TRUST_DOMAIN), "agent-node"]]),
  });
  agent = await startTestAgent(server, folder.dir, { kubeObjects: { objects, kube: client } });
});
beforeEach(async () => {
  kube.routes.clear();
  kube.routes.set("/apis/apps", { preferredVersion: { version: "v1" } });
  kube.routes.set("/apis/apps/v1", { resources: [{ name: "deployments", kind: "Deployment", namespaced: true }] });
  kube.routes.set(OBJECT, deployment());
  kube.routes.set(REVIEWS, { status: { allowed: true } });
  await entitle("k8s:resource:deployments.apps", "k8s:key:shop/checkout", "k8s:label:app:checkout");
});
afterEach(() => {
  for (const one of open.splice(0)) {
    one.close();
  }
});
after(async () => {
  await agent.close();
  await server.close();
  await kube.close();
  folder.remove();
});

async function entitle(...selectors: readonly string[]): Promise<void> {
  const id = `e-${selectors.join()}`;
  server.setEntries({ id, spiffeId: CHECKOUT, selectors });
  await until(() => agent.cache.entries.has(id) && agent.cache.svidCount === 1, "the entry");
}

function sidecar(id = sidecarId(TRUST_DOMAIN)) {
  const bundles: X509Bundles = new Map<TrustDomain, readonly Uint8Array[]>([[TRUST_DOMAIN, [server.ca.der]]]);
  return { svid: new Cell<X509Svid | null>(server.sign(id, HOUR_MS)), bundles: new Cell(bundles) };
}

function client() {
  const { svid } = sidecar();
  const credentials = spiffeCredentials({
    svid,
    authorities: new Cell<readonly Uint8Array[]>([server.ca.der]),
    refuse: () => null,
  });
  const made = makeClient(API, agent.brokerSocket.replace("unix://", "unix:"), credentials, {
    ...SPIFFE_CHANNEL_OPTIONS,
    "grpc.use_local_subchannel_pool": 1,
  });
  open.push(made);
  return made;
}

function watch(object = NAMED) {
  const source = watchBroker({
    brokerSocket: agent.brokerSocket,
    own: sidecar(),
    workload: { object },
    spiffeId: CHECKOUT,
    log: silentLog,
    clock,
    random: () => 0,
  });
  open.push(source);
  return source;
}

async function failure(object: Partial<typeof NAMED>) {
  const stream = client().subscribeToX509SVID(
    { reference: objectReference({ ...NAMED, ...object }) },
    { metadata: brokerMetadata() },
  );
  const error = await new Promise<ServiceError>((resolve) => {
    stream.on("error", resolve);
    stream.resume();
  });
  const bytes = error.metadata.get("grpc-status-details-bin")[0] as Buffer | undefined;
  const any = bytes === undefined ? undefined : fromBinary(StatusSchema, bytes).details[0];
  const info = any === undefined ? undefined : anyUnpack(any, ErrorInfoSchema);
  return [error.code, info?.reason, info?.domain];
}

test("an object's identity goes to the broker that names it, by its key or its uid", async () => {
  const source = watch();
  await until(() => source.svid.value?.id === CHECKOUT, "the identity");
  kube.routes.set("/apis/apps/v1/deployments", { items: [deployment()], metadata: {} });
  const byUid = watch({ ...NAMED, namespace: "", name: "", uid: UID });
  await until(() => byUid.svid.value?.id === CHECKOUT, "the identity by uid");
});

test("each failure has its code and reason", async () => {
  kube.routes.set("/api/v1", { resources: [{ name: "nodes", kind: "Node", namespaced: false }] });
  assert.deepEqual(await failure({ plural: "" }), [Status.INVALID_ARGUMENT, "WORKLOAD_REFERENCE_INVALID", "spiffe.io"]);
  assert.deepEqual(await failure({ name: "", namespace: "" }), [
    Status.INVALID_ARGUMENT,
    "WORKLOAD_REFERENCE_INVALID",
    "spiffe.io",
  ]);
  assert.deepEqual(await failure({ uid: "x" }), [Status.INVALID_ARGUMENT, "WORKLOAD_REFERENCE_INVALID", "spiffe.io"]);
  assert.deepEqual(await failure({ plural: "things" }), [
    Status.INVALID_ARGUMENT,
    "WORKLOAD_REFERENCE_INVALID",
    "spiffe.io",
  ]);
  assert.deepEqual(await failure({ name: "none" }), [Status.NOT_FOUND, "WORKLOAD_NOT_FOUND", "spiffe.io"]);
  assert.deepEqual(await failure({ uid: NEXT_UID }), [Status.NOT_FOUND, "WORKLOAD_NOT_FOUND", "spiffe.io"]);
  kube.routes.set(OBJECT, deployment(UID, "another"));
  assert.deepEqual(await failure({}), [Status.PERMISSION_DENIED, "WORKLOAD_NOT_ENTITLED", "spiffe.io"]);
  kube.routes.set(REVIEWS, { status: { allowed: false } });
  assert.deepEqual(await failure({}), [Status.PERMISSION_DENIED, undefined, undefined]);
  kube.routes.set(REVIEWS, "broken");
  assert.deepEqual(await failure({}), [Status.PERMISSION_DENIED, undefined, undefined]);
  const empty = {
    reference: { reference: anyPack(KubernetesObjectReferenceSchema, create(KubernetesObjectReferenceSchema)) },
  };
  const stream = client().subscribeToJWTBundles(empty, { metadata: brokerMetadata() });
  const error = await new Promise<ServiceError>((resolve) => {
    stream.on("error", resolve);
    stream.resume();
  });
  assert.equal(error.code, Status.INVALID_ARGUMENT);
});

test("when the object is deleted, the identity ends at once on both sides", async () => {
  const source = watch();
  await until(() => source.svid.value !== null && kube.watchers(COLLECTION) === 1, "the watch");
  kube.routes.delete(OBJECT);
  kube.tell(COLLECTION, "DELETED", deployment());
  await until(() => source.svid.value === null, "the end");
  assert.equal(source.state.value.kind, "denied");
  await until(() => kube.watchers(COLLECTION) === 0, "the watch to be given up");
});

test("an object made anew under the name, or changed so that it no longer matches, ends it too", async () => {
  for (const next of [deployment(NEXT_UID), deployment(UID, "another")]) {
    kube.routes.set(OBJECT, deployment());
    const source = watch({ ...NAMED, uid: UID });
    await until(() => source.svid.value !== null && kube.watchers(COLLECTION) === 1, "the watch");
    kube.routes.set(OBJECT, next);
    kube.tell(COLLECTION, "MODIFIED", next);
    await until(() => source.svid.value === null, "the end");
    source.close();
    await until(() => kube.watchers(COLLECTION) === 0, "the watch to be given up");
  }
});

test("a pod of this node is looked at again and again, and its end seen", async () => {
  await entitle("k8s:ns:shop", "k8s:pod-name:checkout-1");
  const found = readPod({ metadata: { name: "checkout-1", namespace: "shop", uid: UID }, spec: {}, status: {} });
  pods = [found ?? assert.fail()];
  const source = watch({ plural: "pods", group: "core", namespace: "shop", name: "checkout-1", uid: "" });
  await until(() => source.svid.value !== null, "the identity");
  pods = [];
  await until(
    () => source.svid.value === null,
    "the end",
    () => clock.advance(1_000),
  );
});

test("tokens for an object, as long as it is there", async () => {
  const ask = () =>
    client().fetchJWTSVID({ reference: objectReference(NAMED), audience: ["a"] }, { metadata: brokerMetadata() });
  assert.equal((await ask()).svids[0]?.spiffeId, CHECKOUT);
  kube.routes.delete(OBJECT);
  await assert.rejects(ask(), { code: Status.NOT_FOUND });
});
