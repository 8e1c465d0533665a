/**
 * k8s_psat: a node proves by a projected service account token of its agent's pod, which the cluster's API vouches for.
 * SPEC: SPIRE, doc/plugin_server_nodeattestor_k8s_psat.md.
 */
import { EveryhopError } from "../../../../core/base/errors.ts";
import { makeSpiffeId } from "../../../../core/spiffe/id.ts";
import type { KubeClient } from "../../../../io/kube.ts";
import { readPayload, textField } from "../payload.ts";
import type { Attempt, NodeVerifier, ProvenNode } from "../proof.ts";

export interface ClusterOptions {
  /** `namespace:name`. */
  readonly serviceAccounts: readonly string[];
  /** Default: `spire-server`. Empty: the API's own. */
  readonly audience?: readonly string[];
  readonly nodeLabels?: readonly string[];
  readonly podLabels?: readonly string[];
  readonly podUidInAgentId?: boolean;
  readonly client: KubeClient;
}

const DEFAULT_AUDIENCE = ["spire-server"];
/** Names of Kubernetes' objects, before they are put in a path. */
const OBJECT_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

export function k8sPsatVerifier(clusters: Readonly<Record<string, ClusterOptions>>): NodeVerifier {
  return {
    type: "k8s_psat",
    async verify(bytes, attempt) {
      const payload = readPayload(bytes, "attestation payload");
      const name = textField(payload, "cluster");
      const token = textField(payload, "token");
      const cluster = Object.hasOwn(clusters, name) ? clusters[name] : undefined;
      if (cluster === undefined) {
        throw new EveryhopError("invalid-argument", `not configured for cluster \`${name.slice(0, 64)}\``);
      }
      const bound = await review(name, cluster, token);
      const pod = await getPod(name, cluster, bound);
      return proven(name, cluster, bound, pod, await getNode(name, cluster, pod), attempt);
    },
  };
}

/** What a token is bound to, as the cluster says. */
interface Bound {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly podName: string;
  readonly podUid: string;
}

interface KubeObject {
  readonly metadata?: { readonly uid?: unknown; readonly labels?: Readonly<Record<string, unknown>> };
  readonly spec?: { readonly nodeName?: unknown };
  readonly status?: { readonly hostIP?: unknown };
}

interface ReviewStatus {
  readonly authenticated?: unknown;
  readonly audiences?: unknown;
  readonly user?: { readonly username?: unknown; readonly extra?: Readonly<Record<string, unknown>> };
}

/** INVARIANT: only the cluster's own answer for our audience counts; the token itself is not read. */
async function review(name: string, cluster: ClusterOptions, token: string): Promise<Bound> {
  const audiences = cluster.audience ?? DEFAULT_AUDIENCE;
  const answer = await asked(
    cluster.client.post("/apis/authentication.k8s.io/v1/tokenreviews", {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenReview",
      spec: { token, ...(audiences.length === 0 ? {} : { audiences }) },
    }),
  );
  const status = ((answer ?? {}) as { status?: ReviewStatus }).status ?? {};
  if (status.authenticated !== true) {
    const message = `token not authenticated according to TokenReview API for cluster \`${name}\``;
    throw new EveryhopError("permission-denied", message);
  }
  // An API that knows nothing of audiences answers without them, and would let in any service account's token.
  const answered = Array.isArray(status.audiences) ? status.audiences : [];
  if (audiences.length > 0 && !audiences.some((audience) => answered.includes(audience))) {
    throw new EveryhopError("permission-denied", `the token is not for \`${audiences.join(", ")}\``, {
      hint: "project the agent's token with that audience, or set `audience` of the cluster",
    });
  }
  const account = serviceAccountOf(name, status);
  if (!cluster.serviceAccounts.includes(account.join(":"))) {
    const message = `\`${account.join(":")}\` is not an allowed service account for cluster \`${name}\``;
    throw new EveryhopError("permission-denied", message);
  }
  const [namespace, serviceAccount] = account;
  return { namespace, serviceAccount, podName: extra(status, "pod-name"), podUid: extra(status, "pod-uid") };
}

function serviceAccountOf(cluster: string, { user }: ReviewStatus): readonly [namespace: string, name: string] {
  const found = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(String(user?.username ?? ""));
  if (found === null) {
    throw new EveryhopError("permission-denied", `the token in cluster \`${cluster}\` is no service account's`);
  }
  return [found[1] ?? "", found[2] ?? ""];
}

function extra({ user }: ReviewStatus, key: string): string {
  const values = user?.extra?.[`authentication.kubernetes.io/${key}`];
  const [value] = Array.isArray(values) ? values : [];
  if (typeof value !== "string" || value === "") {
    throw new EveryhopError("permission-denied", `the token is bound to no pod (no \`${key}\`)`, {
      hint: "it has to be a projected token of the agent's pod",
    });
  }
  return value;
}

async function getPod(name: string, { client }: ClusterOptions, bound: Bound): Promise<KubeObject> {
  const { namespace, podName, podUid } = bound;
  const path = `/api/v1/namespaces/${objectName(namespace)}/pods/${objectName(podName)}`;
  const pod = (await asked(client.get(path))) as KubeObject | null;
  // A pod that was deleted and made again has the name and not the uid: the token is of one that is gone.
  if (pod === null || pod.metadata?.uid !== podUid) {
    const message = `pod UID mismatch for pod \`${podName}\` in cluster \`${name}\`: token bound to pod UID \`${podUid}\``;
    throw new EveryhopError("permission-denied", message);
  }
  return pod;
}

async function getNode(name: string, { client }: ClusterOptions, pod: KubeObject): Promise<KubeObject> {
  const nodeName = String(pod.spec?.nodeName ?? "");
  const path = nodeName === "" ? null : `/api/v1/nodes/${objectName(nodeName)}`;
  const node = path === null ? null : ((await asked(client.get(path))) as KubeObject | null);
  if (node === null || typeof node.metadata?.uid !== "string" || node.metadata.uid === "") {
    throw new EveryhopError("unavailable", `the pod's node is not known in cluster \`${name}\``);
  }
  return node;
}

/** What the API refuses, it refuses to the server: that is not the node's fault, who may come again. */
async function asked(answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (cause) {
    const { message } = cause as Error;
    throw new EveryhopError("unavailable", `the cluster cannot be asked: ${message}`, {
      hint: "the server's service account needs `system:auth-delegator`, and `get` on pods and nodes",
      cause,
    });
  }
}

function objectName(name: string): string {
  if (!OBJECT_NAME.test(name)) {
    throw new EveryhopError("permission-denied", `\`${name.slice(0, 64)}\` is no name of an object`);
  }
  return name;
}

function proven(
  cluster: string,
  options: ClusterOptions,
  bound: Bound,
  pod: KubeObject,
  node: KubeObject,
  { trustDomain }: Attempt,
): ProvenNode {
  const nodeUid = String(node.metadata?.uid);
  const suffix = options.podUidInAgentId === true ? `pod/${bound.podUid}` : nodeUid;
  const path = `/spire/agent/k8s_psat/${cluster}/${suffix}`;
  makeSpiffeId(trustDomain, path);
  const found: [string, unknown][] = [
    ["cluster", cluster],
    ["agent_ns", bound.namespace],
    ["agent_sa", bound.serviceAccount],
    ["agent_pod_name", bound.podName],
    ["agent_pod_uid", bound.podUid],
    ["agent_node_ip", pod.status?.hostIP],
    ["agent_node_name", pod.spec?.nodeName],
    ["agent_node_uid", nodeUid],
    ...labels("agent_node_label", node, options.nodeLabels),
    ...labels("agent_pod_label", pod, options.podLabels),
  ];
  const selectors = found.filter(([, value]) => typeof value === "string" && value !== "");
  return { path, selectors: selectors.map(([key, value]) => `k8s_psat:${key}:${value}`), reattestable: true };
}

function labels(key: string, of: KubeObject, allowed: readonly string[] = []): [string, unknown][] {
  return Object.entries(of.metadata?.labels ?? {})
    .filter(([name]) => allowed.includes(name))
    .map(([name, value]) => [`${key}:${name}`, value]);
}
