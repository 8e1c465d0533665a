import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import fc from "fast-check";
import { FakeClock } from "../../../../core/base/clock.ts";
import { kubeClient } from "../../../../io/kube.ts";
import { type FakeKube, fakeKube, TOKEN } from "../../../../io/kube-fixture.ts";
import type { Observation } from "../observe.ts";
import { K8S_DEFAULTS, type K8sOptions, k8sAttestor } from "./k8s.ts";
import { type KubeletOptions, kubeletPods } from "./kubelet.ts";
import { podSelectors, readPod, readPods } from "./pod.ts";

const ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
const INIT = "aff34703e5e1f89443e9a1bffcc80f43f74d4808a2dd22c8f88c08547b323934";
const DEBUG = "8d461fa5765781bcf5f7eb192f101bc3103d4b932e26236f43feecfa20664f96";
const UID = "2c48913c-b29f-11e7-9350-020968147796";
const DIGEST = `docker.io/library/nginx@sha256:${"ab".repeat(32)}`;

const pod = (uid = UID, id = ID) => ({
  metadata: {
    name: "shop-7d4b9",
    namespace: "production",
    uid,
    labels: { app: "shop", "example.com/tier": "web" },
    ownerReferences: [{ apiVersion: "apps/v1", kind: "ReplicaSet", name: "shop-7d4", uid: "rs-uid", controller: true }],
  },
  spec: { serviceAccountName: "shop", nodeName: "node-1" },
  status: {
    containerStatuses: [
      { name: "web", containerID: `containerd://${id}`, image: "docker.io/library/nginx:1.27", imageID: DIGEST },
      { name: "late", containerID: "", image: "busybox", imageID: "" },
    ],
    initContainerStatuses: [
      { name: "init", containerID: `containerd://${INIT}`, image: "busybox:1", imageID: "busybox@x" },
    ],
    ephemeralContainerStatuses: [{ name: "debug", containerID: `containerd://${DEBUG}`, image: "sh", imageID: "sh@x" }],
  },
});

const POD_SELECTORS = [
  "k8s:ns:production",
  "k8s:sa:shop",
  "k8s:node-name:node-1",
  `k8s:pod-uid:${UID}`,
  "k8s:pod-name:shop-7d4b9",
  "k8s:pod-image-count:2",
  "k8s:pod-init-image-count:1",
  "k8s:pod-image:docker.io/library/nginx:1.27",
  `k8s:pod-image:${DIGEST}`,
  "k8s:pod-image:busybox",
  "k8s:pod-init-image:busybox:1",
  "k8s:pod-init-image:busybox@x",
  "k8s:pod-label:app:shop",
  "k8s:pod-label:example.com/tier:web",
  "k8s:pod-owner:ReplicaSet:shop-7d4",
  "k8s:pod-owner-uid:ReplicaSet:rs-uid",
];
const CONTAINER_SELECTORS = [
  "k8s:container-name:web",
  "k8s:container-image:docker.io/library/nginx:1.27",
  `k8s:container-image:${DIGEST}`,
];

let kube: FakeKube;
let clock: FakeClock;
before(async () => {
  kube = await fakeKube();
});
beforeEach(() => {
  clock = new FakeClock();
  kube.routes.clear();
  kube.routes.set("/pods", { items: [pod()] });
  kube.asked.length = 0;
});
after(() => kube.close());

const kubelet = (options: Partial<KubeletOptions> = {}) =>
  kubeletPods({
    host: "localhost",
    port: kube.port,
    secure: true,
    serverName: null,
    caFile: kube.caFile,
    tokenFile: kube.tokenFile,
    client: null,
    ...options,
  });

const attestor = (options: Partial<K8sOptions> = {}) =>
  k8sAttestor({
    ...K8S_DEFAULTS,
    listPods: () => kubelet(),
    clock,
    namespaceLabels: null,
    ownCgroups: () => "0::/",
    ...options,
  });

const inPod = (uid: string, id: string) => ({ cgroups: `0::/kubepods/burstable/pod${uid}/${id}` }) as Observation;
const all = () => true;

test("a pod's process has the selectors of its pod and its container", async () => {
  assert.deepEqual(await attestor().attest(inPod(UID, ID), all), [...POD_SELECTORS, ...CONTAINER_SELECTORS]);
  const init = await attestor().attest(inPod(UID, INIT), all);
  assert.deepEqual(init.slice(POD_SELECTORS.length), [
    "k8s:container-name:init",
    "k8s:container-image:busybox:1",
    "k8s:container-image:busybox@x",
  ]);
  assert.deepEqual(await attestor().attest({ cgroups: "0::/system.slice/sshd.service" } as Observation, all), []);
});

test("without the pod's uid in the path the container's id is enough", async () => {
  const selectors = await attestor().attest({ cgroups: `0::/../crio-${ID}.scope` } as Observation, all);
  assert.deepEqual(selectors, [...POD_SELECTORS, ...CONTAINER_SELECTORS]);
});

test("a container of another pod's, or of two, or put in for debugging, gets nothing", async () => {
  const once = { maxPollAttempts: 1 };
  const other = "72f7f152-440c-66ac-9084-e0fc1d8a910c";
  await assert.rejects(attestor(once).attest(inPod(other, ID), all), /lists no pod with the container/);
  await assert.rejects(attestor().attest(inPod(UID, DEBUG), all), /ephemeral container/);
  kube.routes.set("/pods", { items: [pod(), pod(other)] });
  const crio = { cgroups: `0::/../crio-${ID}.scope` } as Observation;
  await assert.rejects(attestor().attest(crio, all), /in two pods/);
});

test("a container that is not listed yet is waited for, those who wait for it together", async () => {
  kube.routes.set("/pods", { items: [] });
  const one = attestor();
  const asking = [one.attest(inPod(UID, ID), all), one.attest(inPod(UID, ID), all)];
  while (kube.asked.length === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  let done = false;
  void Promise.all(asking).then(() => {
    done = true;
  });
  kube.routes.set("/pods", { items: [pod()] });
  while (!done) {
    clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (const selectors of await Promise.all(asking)) {
    assert.equal(selectors.length, POD_SELECTORS.length + CONTAINER_SELECTORS.length);
  }
  const listed = kube.asked.length;
  await one.attest(inPod(UID, INIT), all);
  assert.ok(kube.asked.length - listed <= 1, "a fresh list serves the next");
});

test("a search ends, and says what the kubelet said last", async () => {
  kube.routes.set("/pods", { items: null });
  const search = assert.rejects(attestor({ maxPollAttempts: 3 }).attest(inPod(UID, ID), all), { code: "not-found" });
  while (kube.asked.length === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setImmediate(resolve));
  let ended = false;
  void search.then(() => {
    ended = true;
  });
  while (!ended) {
    clock.advance(500);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(kube.asked.length <= 3);
  kube.routes.set("/pods", "no list");
  await assert.rejects(attestor({ maxPollAttempts: 1 }).attest(inPod(UID, ID), all), /no list of pods/);
});

test("where container selectors are off the pod is enough", async () => {
  const off = attestor({ disableContainerSelectors: true });
  assert.deepEqual(await off.attest(inPod(UID, ID), all), POD_SELECTORS);
  assert.deepEqual(await off.attest(inPod(UID, "0".repeat(64)), all), POD_SELECTORS);
});

test("labels of the namespace come from Kubernetes, where they are wanted and allowed", async () => {
  const with_ = attestor({ namespaceLabels: kubeClient(kube.config) });
  kube.routes.set("/api/v1/namespaces/production", ({ accept }: { accept: string }) => {
    assert.match(accept, /PartialObjectMetadata/);
    return { metadata: { name: "production", labels: { team: "payments" } } };
  });
  assert.deepEqual((await with_.attest(inPod(UID, ID), all)).at(-1), "k8s:ns-label:team:payments");
  const selectors = await with_.attest(inPod(UID, ID), () => false);
  assert.ok(!selectors.some((selector) => selector.startsWith("k8s:ns-label")));
  kube.routes.delete("/api/v1/namespaces/production");
  await assert.rejects(with_.attest(inPod(UID, ID), all), /does not say which labels/);
});

test("the kubelet has to prove its name, and is shown the token of this moment", async () => {
  assert.equal((await kubelet()).length, 1);
  assert.equal((await kubelet({ host: "127.0.0.1", serverName: "node-1" })).length, 1);
  await assert.rejects(kubelet({ serverName: "node-2" }), /node-2/);
  writeFileSync(kube.tokenFile, "stale");
  await assert.rejects(kubelet(), { code: "permission-denied" });
  await assert.rejects(kubelet({ tokenFile: null }), { code: "permission-denied" });
  writeFileSync(kube.tokenFile, TOKEN);
  assert.equal((await kubelet({ caFile: null, serverName: "node-2" })).length, 1);
  await assert.rejects(kubelet({ tokenFile: `${kube.tokenFile}.none` }), /cannot read/);
  await assert.rejects(kubelet({ caFile: kube.tokenFile }), { code: "unavailable" });
});

test("the read-only port has no TLS and sees no token", async (t) => {
  const server = createServer((request, response) => {
    assert.equal(request.headers.authorization, undefined);
    response.end(JSON.stringify({ items: [pod()] }));
  });
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  assert.equal((await kubelet({ secure: false, host: "127.0.0.1", port })).length, 1);
});

test("any answer has a reading or a typed error", () => {
  const odd = fc.oneof(
    fc.jsonValue(),
    fc.jsonValue().map((items) => ({ items })),
    fc.jsonValue().map((status) => ({ items: [{ ...pod(), status }] })),
    fc.jsonValue().map((metadata) => ({ items: [{ ...pod(), metadata }, pod()] })),
  );
  fc.assert(
    fc.property(odd, (document) => {
      try {
        for (const read of readPods(document)) {
          assert.ok(podSelectors(read).every((selector) => selector.startsWith("k8s:")));
        }
      } catch (error) {
        assert.equal((error as { code?: string }).code, "unavailable");
      }
      readPod(document);
    }),
  );
});
