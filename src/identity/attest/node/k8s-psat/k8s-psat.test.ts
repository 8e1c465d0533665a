import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { kubeClientOf } from "../../../../io/kube.ts";
import { kubeconfigAccess } from "../../../../io/kubeconfig.ts";
import { prove, refusal } from "../fixture.ts";
import { type FakeKube, fakeKube } from "./kube-fixture.ts";
import { k8sPsatProof } from "./prove.ts";
import { type ClusterOptions, k8sPsatVerifier } from "./verify.ts";

const POD = "/api/v1/namespaces/spire/pods/agent-x";
const NODE = "/api/v1/nodes/worker-1";

interface Cluster {
  readonly kube: FakeKube;
  verifier(options?: Partial<ClusterOptions>): ReturnType<typeof k8sPsatVerifier>;
  agent(token?: string, cluster?: string): ReturnType<typeof k8sPsatProof>;
}

async function cluster(t: TestContext): Promise<Cluster> {
  const kube = await fakeKube(t);
  const dir = mkdtempSync(join(tmpdir(), "everyhop-psat-"));
  t.after(() => rmSync(dir, { recursive: true }));
  kube.state.tokens.set("good", {
    audiences: ["spire-server"],
    username: "system:serviceaccount:spire:spire-agent",
    extra: {
      "authentication.kubernetes.io/pod-name": ["agent-x"],
      "authentication.kubernetes.io/pod-uid": ["pod-uid"],
    },
  });
  kube.state.objects.set(POD, {
    metadata: { uid: "pod-uid", labels: { app: "agent", secret: "no" } },
    spec: { nodeName: "worker-1" },
    status: { hostIP: "10.0.0.7" },
  });
  kube.state.objects.set(NODE, { metadata: { uid: "node-uid", labels: { zone: "eu", secret: "no" } } });
  const kubeconfig = join(dir, "kubeconfig");
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      "current-context": "c",
      contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
      clusters: [
        {
          name: "k",
          cluster: { server: kube.url, "certificate-authority-data": Buffer.from(kube.ca).toString("base64") },
        },
      ],
      users: [{ name: "u", user: { token: kube.bearer } }],
    }),
  );
  const client = kubeClientOf(kubeconfigAccess(kubeconfig));
  return {
    kube,
    verifier: (options = {}) => {
      const one = { serviceAccounts: ["spire:spire-agent"], client, ...options };
      return k8sPsatVerifier({ production: one });
    },
    agent(token = "good", name = "production") {
      const tokenFile = join(dir, "token");
      writeFileSync(tokenFile, `${token}\n`);
      return k8sPsatProof({ cluster: name, tokenFile });
    },
  };
}

test("an agent's pod is known by its node, with what the cluster says of both", async (t) => {
  const { verifier, agent, kube } = await cluster(t);
  const found = await prove(verifier({ nodeLabels: ["zone"], podLabels: ["app"] }), agent());
  assert.deepEqual(found, {
    path: "/spire/agent/k8s_psat/production/node-uid",
    selectors: [
      "k8s_psat:cluster:production",
      "k8s_psat:agent_ns:spire",
      "k8s_psat:agent_sa:spire-agent",
      "k8s_psat:agent_pod_name:agent-x",
      "k8s_psat:agent_pod_uid:pod-uid",
      "k8s_psat:agent_node_ip:10.0.0.7",
      "k8s_psat:agent_node_name:worker-1",
      "k8s_psat:agent_node_uid:node-uid",
      "k8s_psat:agent_node_label:zone:eu",
      "k8s_psat:agent_pod_label:app:agent",
    ],
    reattestable: true,
  });
  assert.deepEqual(kube.requests, ["POST /apis/authentication.k8s.io/v1/tokenreviews", `GET ${POD}`, `GET ${NODE}`]);
  const byPod = await prove(verifier({ podUidInAgentId: true }), agent());
  assert.equal(byPod.path, "/spire/agent/k8s_psat/production/pod/pod-uid");
});

test("who is not such a pod is refused, and told why", async (t) => {
  const { verifier, agent, kube } = await cluster(t);
  const { tokens } = kube.state;
  const good = tokens.get("good");
  assert.ok(good !== undefined);
  tokens.set("other-audience", { ...good, audiences: ["vault"] });
  tokens.set("other-account", { ...good, username: "system:serviceaccount:default:spire-agent" });
  tokens.set("a-user", { ...good, username: "alice" });
  tokens.set("no-pod", { ...good, extra: {} });
  tokens.set("gone", { ...good, extra: { ...good.extra, "authentication.kubernetes.io/pod-uid": ["old-uid"] } });
  tokens.set("path", { ...good, extra: { ...good.extra, "authentication.kubernetes.io/pod-name": ["../../secrets"] } });
  const table: [string, string, RegExp][] = [
    ["unknown", "permission-denied", /not authenticated according to TokenReview/],
    ["other-audience", "permission-denied", /not authenticated/],
    ["other-account", "permission-denied", /`default:spire-agent` is not an allowed service account/],
    ["a-user", "permission-denied", /no service account's/],
    ["no-pod", "permission-denied", /bound to no pod/],
    ["gone", "permission-denied", /UID mismatch/],
    ["path", "permission-denied", /no name of an object/],
  ];
  for (const [token, code, message] of table) {
    await assert.rejects(prove(verifier(), agent(token)), refusal(code, message), token);
  }
  await assert.rejects(
    prove(verifier(), agent("good", "other")),
    refusal("invalid-argument", /not configured for cluster/),
  );
  kube.state.knowsAudiences = false;
  await assert.rejects(
    prove(verifier(), agent("other-audience")),
    refusal("permission-denied", /not for `spire-server`/),
  );
});

test("an API that is away, or refuses the server, is not the node's fault: it may come again", async (t) => {
  const { verifier, agent, kube } = await cluster(t);
  const nobody = kubeClientOf(async () => ({
    endpoint: { kind: "https", host: "localhost", port: Number(new URL(kube.url).port), ca: kube.ca },
    headers: { authorization: "Bearer wrong" },
  }));
  await assert.rejects(prove(verifier({ client: nobody }), agent()), refusal("unavailable", /Kubernetes refuses/));
  const stranger = kubeClientOf(async () => ({
    endpoint: { kind: "https", host: "localhost", port: Number(new URL(kube.url).port), ca: (await fakeKube(t)).ca },
    headers: {},
  }));
  await assert.rejects(prove(verifier({ client: stranger }), agent()), refusal("unavailable", /./));
  kube.state.objects.delete(NODE);
  await assert.rejects(prove(verifier(), agent()), refusal("unavailable", /node is not known/));
});
