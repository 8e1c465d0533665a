import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import fc from "fast-check";
import { FakeClock } from "../../../../core/base/clock.ts";
import { kubeClient } from "../../../../io/kube.ts";
import { type FakeKube, type FakeRequest, fakeKube } from "../../../../io/kube-fixture.ts";
import { type ObjectReference, objectReferenceFault } from "./object-reference.ts";
import { KubeObjects, type ObjectsOptions } from "./objects.ts";
import { readPod } from "./pod.ts";

const BROKER = "spiffe://example.com/ztunnel";
const UID = "0fa1b2c3-4d5e-6f70-8192-a3b4c5d6e7f8";
const POD_UID = "2c48913c-b29f-11e7-9350-020968147796";

const deployment = {
  metadata: {
    name: "checkout",
    namespace: "shop",
    uid: UID,
    labels: { app: "checkout" },
    ownerReferences: [
      { apiVersion: "example.com/v1", kind: "Shop", name: "main", uid: "owner-uid", controller: true },
      { apiVersion: "v1", kind: "ConfigMap", name: "settings", uid: "map-uid" },
    ],
  },
};
const pod = {
  metadata: { name: "checkout-7c9f", namespace: "shop", uid: POD_UID, labels: { app: "checkout" } },
  spec: { serviceAccountName: "checkout", nodeName: "node-1" },
  status: {},
};

let kube: FakeKube;
let reviews: FakeRequest["body"][];
let allowed: boolean;
before(async () => {
  kube = await fakeKube();
});
beforeEach(() => {
  reviews = [];
  allowed = true;
  kube.asked.length = 0;
  kube.routes.clear();
  const routes: Record<string, unknown> = {
    "/apis/apps": { preferredVersion: { version: "v1" }, versions: [{ version: "v1" }] },
    "/apis/apps/v1": {
      resources: [{ name: "deployments", kind: "Deployment", namespaced: true }, { name: "deployments/scale" }],
    },
    "/apis/apps/v1/namespaces/shop/deployments/checkout": deployment,
    "/api/v1": {
      resources: [
        { name: "nodes", kind: "Node", namespaced: false },
        { name: "serviceaccounts", kind: "ServiceAccount", namespaced: true },
      ],
    },
    "/api/v1/nodes/node-1": { metadata: { name: "node-1", uid: UID } },
    "/api/v1/namespaces/shop/pods/checkout-7c9f": pod,
    "/apis/authorization.k8s.io/v1/subjectaccessreviews": ({ body }: FakeRequest) => {
      reviews.push(body);
      return { status: { allowed } };
    },
  };
  for (const [path, document] of Object.entries(routes)) {
    kube.routes.set(path, document);
  }
});
after(() => kube.close());

function objects(options: Partial<ObjectsOptions> = {}): KubeObjects {
  return new KubeObjects({
    kube: kubeClient(kube.config),
    nodePods: async () => [],
    clock: new FakeClock(),
    namespaceLabels: false,
    accessPolicy: "enforced",
    brokers: new Map([[BROKER, "cluster"]]),
    ...options,
  });
}

const reference = (plural: string, group: string, key: Partial<ObjectReference> = {}): ObjectReference => ({
  plural,
  group,
  namespace: "",
  name: "",
  uid: "",
  ...key,
});
const CHECKOUT = { namespace: "shop", name: "checkout" };

test("an object has the selectors of its type, key, labels and owners", async () => {
  const { selectors, uid, watchPath } = await objects().resolve(reference("deployments", "apps", CHECKOUT), BROKER);
  assert.equal(uid, UID);
  assert.deepEqual(
    [...selectors],
    [
      `k8s:uid:${UID}`,
      "k8s:resource:deployments.apps",
      "k8s:plural:deployments",
      "k8s:group:apps",
      "k8s:version:v1",
      "k8s:apiVersion:apps/v1",
      "k8s:kind:Deployment",
      "k8s:name:checkout",
      "k8s:namespace:shop",
      "k8s:key:shop/checkout",
      "k8s:label:app:checkout",
      "k8s:owner-key:example.com/Shop/main",
      "k8s:owner-uid:example.com/Shop/owner-uid",
      "k8s:controller-key:example.com/Shop/main",
      "k8s:controller-uid:example.com/Shop/owner-uid",
      "k8s:owner-key:core/ConfigMap/settings",
      "k8s:owner-uid:core/ConfigMap/map-uid",
    ].sort(),
  );
  assert.match(
    watchPath ?? "",
    /^\/apis\/apps\/v1\/namespaces\/shop\/deployments\?watch=true&fieldSelector=metadata.name%3Dcheckout$/,
  );
  const node = await objects().resolve(reference("nodes", "core", { name: "node-1" }), BROKER);
  for (const selector of ["k8s:resource:nodes.core", "k8s:apiVersion:v1", "k8s:key:node-1", "k8s:group:core"]) {
    assert.ok(node.selectors.includes(selector as never), selector);
  }
  assert.ok(!node.selectors.some((selector) => selector.startsWith("k8s:namespace")));
});

test("a pod has the selectors of a pod, from its node's kubelet or the API as far as the broker may", async () => {
  const of = reference("pods", "core", { namespace: "shop", name: "checkout-7c9f" });
  const near = objects({
    nodePods: async () => [readPod(pod) ?? assert.fail()],
    brokers: new Map([[BROKER, "agent-node"]]),
  });
  const local = await near.resolve(of, BROKER);
  assert.equal(local.watchPath, null);
  for (const selector of [
    "k8s:ns:shop",
    "k8s:sa:checkout",
    "k8s:pod-name:checkout-7c9f",
    "k8s:pod-label:app:checkout",
  ]) {
    assert.ok(local.selectors.includes(selector as never), selector);
  }
  assert.ok(!kube.asked.some((line) => line.startsWith("GET /api/v1/namespaces")));
  assert.deepEqual(
    (await near.resolve(reference("pods", "core", { uid: POD_UID.toUpperCase() }), BROKER)).uid,
    POD_UID,
  );
  const elsewhere = objects({ brokers: new Map([[BROKER, "agent-node"]]) });
  await assert.rejects(elsewhere.resolve(of, BROKER), { code: "not-found" });
  const far = await objects().resolve(of, BROKER);
  assert.deepEqual(far.selectors, local.selectors);
  assert.notEqual(far.watchPath, null);
  const away = objects({
    nodePods: async () => {
      throw new Error("the kubelet is away");
    },
  });
  assert.equal((await away.resolve(of, BROKER)).uid, POD_UID);
});

test("a key and a uid have to be of one object; a uid alone is looked for, page by page", async () => {
  const other = "00000000-0000-0000-0000-000000000000";
  await assert.rejects(objects().resolve(reference("deployments", "apps", { ...CHECKOUT, uid: other }), BROKER), {
    code: "not-found",
  });
  assert.equal((await objects().resolve(reference("deployments", "apps", { ...CHECKOUT, uid: UID }), BROKER)).uid, UID);
  kube.routes.set("/apis/apps/v1/deployments", ({ query }: FakeRequest) =>
    query.get("continue") === "more"
      ? { items: [deployment], metadata: {} }
      : { items: [{ metadata: { uid: other, name: "x" } }], metadata: { continue: "more" } },
  );
  const found = await objects().resolve(reference("deployments", "apps", { uid: UID }), BROKER);
  assert.ok(found.selectors.includes("k8s:key:shop/checkout" as never));
  await assert.rejects(
    objects().resolve(reference("deployments", "apps", { uid: UID.replace("0fa1", "ffff") }), BROKER),
    { code: "not-found" },
  );
});

test("Kubernetes decides which broker may name what, before anything is said of it", async () => {
  await objects().resolve(reference("deployments", "apps", CHECKOUT), BROKER);
  assert.deepEqual(reviews, [
    {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SubjectAccessReview",
      spec: {
        user: BROKER,
        resourceAttributes: { verb: "impersonate-via-spire", group: "apps", resource: "deployments", ...CHECKOUT },
      },
    },
  ]);
  allowed = false;
  for (const key of [CHECKOUT, { namespace: "shop", name: "none" }]) {
    await assert.rejects(objects().resolve(reference("deployments", "apps", key), BROKER), {
      code: "permission-denied",
    });
  }
  const permissive = objects({ accessPolicy: "permissive" });
  assert.equal((await permissive.resolve(reference("deployments", "apps", CHECKOUT), BROKER)).uid, UID);
  await assert.rejects(
    objects().resolve(reference("nodes", "core", { name: "node-1" }), "spiffe://example.com/other"),
    {
      code: "permission-denied",
    },
  );
});

test("what is no reference is refused as such, and never asked for", async () => {
  const table: readonly ObjectReference[] = [
    reference("", "apps", CHECKOUT),
    reference("deployments", "", CHECKOUT),
    reference("deployments/scale", "apps", CHECKOUT),
    reference("..", "apps", CHECKOUT),
    reference("deployments", "apps"),
    reference("deployments", "apps", { namespace: "shop" }),
    reference("deployments", "apps", { namespace: "../x", name: "a" }),
    reference("deployments", "apps", { namespace: "shop", name: ".." }),
    reference("deployments", "apps", { namespace: "shop", name: "a/b" }),
    reference("deployments", "apps", { uid: "not-a-uuid" }),
    reference("pods", "core", { name: "no-namespace" }),
    reference("deployments", "apps", { name: "no-namespace" }),
    reference("nodes", "core", { namespace: "shop", name: "node-1" }),
    reference("deploymnts", "apps", CHECKOUT),
    reference("things", "example.com", CHECKOUT),
  ];
  for (const one of table) {
    await assert.rejects(objects().resolve(one, BROKER), { code: "invalid-argument" }, JSON.stringify(one));
  }
  const nowhere = objects({ kube: null, nodePods: null, accessPolicy: "permissive" });
  await assert.rejects(nowhere.resolve(reference("deployments", "apps", CHECKOUT), BROKER), { code: "unavailable" });
});

test("no reference that is taken leads out of its path", () => {
  const text = fc.oneof(
    fc.string(),
    fc.constantFrom("..", ".", "a/b", "%2e%2e", "pods", "apps", "core", "a\u0000b", ""),
  );
  fc.assert(
    fc.property(text, text, text, text, (plural, group, namespace, name) => {
      const one = reference(plural, group, { namespace, name });
      if (objectReferenceFault(one) === null) {
        const url = new URL(`https://k/apis/${group}/v1/namespaces/${namespace}/${plural}/${encodeURIComponent(name)}`);
        assert.equal(url.pathname.split("/").length, 8);
        assert.equal(url.search + url.hash, "");
      }
    }),
  );
});
