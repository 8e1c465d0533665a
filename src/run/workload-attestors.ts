/** The agent's `workloadAttestors`: what a configuration may say of each kind, and the attestors made of it. */
import { hostname } from "node:os";
import { EveryhopError } from "../core/base/errors.ts";
import {
  boolean,
  duration,
  integer,
  list,
  object,
  oneOf,
  optional,
  port,
  refined,
  required,
  type Shape,
  string,
} from "../core/base/validate.ts";
import type { KubeObjectsOptions } from "../identity/agent/broker.ts";
import type { WorkloadAttestor } from "../identity/attest/workload/attest.ts";
import { CONTAINERD_DEFAULTS, containerdAttestor } from "../identity/attest/workload/containerd/containerd.ts";
import { DOCKER_DEFAULTS, dockerAttestor } from "../identity/attest/workload/docker/docker.ts";
import { K8S_DEFAULTS, k8sAttestor } from "../identity/attest/workload/k8s/k8s.ts";
import { type KubeletOptions, kubeletPods } from "../identity/attest/workload/k8s/kubelet.ts";
import { KubeObjects } from "../identity/attest/workload/k8s/objects.ts";
import { NodePods } from "../identity/attest/workload/k8s/pods.ts";
import { systemdAttestor } from "../identity/attest/workload/systemd/systemd.ts";
import { unixAttestor } from "../identity/attest/workload/unix/unix.ts";
import { systemClock } from "../io/clock.ts";
import { inClusterConfig, type KubeClient, kubeClient, SERVICE_ACCOUNT } from "../io/kube.ts";
import { hostPort, spiffeId } from "./shapes.ts";

/** A unix socket, as `unix:///run/docker.sock` or a path. */
const socketPath: Shape<string> = refined(string({ what: "the path of a socket" }), (text, at) => {
  const path = text.replace(/^unix:(\/\/)?/, "");
  return path.startsWith("/") ? path : at.fault(`\`${text}\` is not an absolute path`);
});

const userSocketPath: Shape<string> = refined(socketPath, (path, at) =>
  path.split("%d").length === 2 ? path : at.fault(`\`${path}\` needs one \`%d\`, for the user's id`),
);

/** Absolute, because these files are Kubernetes' and not the configuration's. */
const filePath: Shape<string> = refined(string({ what: "a file" }), (path, at) =>
  path.startsWith("/") ? path : at.fault(`\`${path}\` is not an absolute path`),
);

const UNIX = object({ discoverWorkloadPath: optional(boolean()), workloadSizeLimit: optional(integer(-1)) });

const DOCKER = object({
  socket: optional(socketPath),
  podmanSocket: optional(socketPath),
  rootlessPodmanSocket: optional(userSocketPath),
  apiVersion: optional(string({ pattern: /^\d+\.\d+$/, what: "a version such as `1.44`" })),
});

const CONTAINERD = object({
  socket: optional(socketPath),
  namespaces: optional(
    list(string({ pattern: /^[A-Za-z0-9][A-Za-z0-9._-]{0,75}$/, what: "a namespace of containerd" }), { min: 1 }),
  ),
});

const API_SERVER = object({
  address: required(hostPort()),
  caFile: required(filePath),
  tokenFile: required(filePath),
});

const K8S_BROKER = object({
  accessPolicy: required(oneOf("enforced", "permissive")),
  brokers: required(
    list(object({ id: required(spiffeId), podReferenceScope: optional(oneOf("agent-node", "cluster")) }), { min: 1 }),
  ),
});

const K8S_FIELDS = object({
  kubeletSecurePort: optional(port()),
  kubeletReadOnlyPort: optional(port()),
  kubeletCaFile: optional(filePath),
  skipKubeletVerification: optional(boolean()),
  tokenFile: optional(filePath),
  certificateFile: optional(filePath),
  privateKeyFile: optional(filePath),
  useAnonymousAuthentication: optional(boolean()),
  nodeName: optional(string()),
  nodeNameEnv: optional(string()),
  maxPollAttempts: optional(integer(1, 1_000)),
  pollRetryInterval: optional(duration(10)),
  disableContainerSelectors: optional(boolean()),
  enableNamespaceLabels: optional(boolean()),
  apiServer: optional(API_SERVER),
  broker: optional(K8S_BROKER),
});

type K8sConfig = typeof K8S_FIELDS extends Shape<infer T> ? T : never;

const K8S: Shape<K8sConfig> = refined(K8S_FIELDS, (k8s, at) => {
  if (k8s.kubeletReadOnlyPort !== undefined && k8s.kubeletSecurePort !== undefined) {
    return at.into("kubeletReadOnlyPort").fault("`kubeletSecurePort` is given already", "give one of the two");
  }
  return (k8s.certificateFile === undefined) === (k8s.privateKeyFile === undefined)
    ? k8s
    : at.into("certificateFile").fault("`certificateFile` and `privateKeyFile` go together");
});

export const WORKLOAD_ATTESTORS = object({
  unix: optional(UNIX),
  systemd: optional(object({})),
  docker: optional(DOCKER),
  containerd: optional(CONTAINERD),
  k8s: optional(K8S),
});

export type WorkloadAttestorsConfig = typeof WORKLOAD_ATTESTORS extends Shape<infer T> ? T : never;

/** What an agent does whose configuration says nothing of it. */
export const DEFAULT_WORKLOAD_ATTESTORS: WorkloadAttestorsConfig = { unix: {} };

/** Errors: `config-invalid` where one needs what this machine does not have. */
export function makeWorkloadAttestors(config: WorkloadAttestorsConfig): WorkloadAttestor[] {
  const { unix, systemd, docker, containerd, k8s } = config;
  return [
    ...(unix === undefined ? [] : [unixAttestor(() => systemClock.now(), unix)]),
    ...(systemd === undefined ? [] : [systemdAttestor()]),
    ...(docker === undefined ? [] : [dockerAttestor({ ...DOCKER_DEFAULTS, ...docker })]),
    ...(containerd === undefined ? [] : [containerdAttestor({ ...CONTAINERD_DEFAULTS, ...containerd })]),
    ...(k8s === undefined ? [] : [makeK8s(k8s, process.env)]),
  ];
}

type Environment = Readonly<Record<string, string | undefined>>;

function makeK8s(config: K8sConfig, env: Environment): WorkloadAttestor {
  const kubelet = kubeletOptions(config, env);
  return k8sAttestor({
    listPods: () => kubeletPods(kubelet),
    clock: systemClock,
    maxPollAttempts: config.maxPollAttempts ?? K8S_DEFAULTS.maxPollAttempts,
    pollRetryIntervalMs: config.pollRetryInterval ?? K8S_DEFAULTS.pollRetryIntervalMs,
    disableContainerSelectors: config.disableContainerSelectors ?? K8S_DEFAULTS.disableContainerSelectors,
    namespaceLabels: config.enableNamespaceLabels === true ? inPod(apiClient(config, env)) : null,
  });
}

/** Where the kubelet is: by the node's name, or on this host, whose name its certificate then has. As SPIRE finds it. */
export function kubeletOptions(config: K8sConfig, env: Environment): KubeletOptions {
  const nodeName = config.nodeName ?? env[config.nodeNameEnv ?? "MY_NODE_NAME"] ?? "";
  const { certificateFile, privateKeyFile } = config;
  const client =
    certificateFile === undefined || privateKeyFile === undefined
      ? null
      : { certFile: certificateFile, keyFile: privateKeyFile };
  const anonymous = config.useAnonymousAuthentication === true || (client !== null && config.tokenFile === undefined);
  return {
    host: nodeName === "" ? "127.0.0.1" : nodeName,
    port: config.kubeletReadOnlyPort ?? config.kubeletSecurePort ?? 10_250,
    secure: config.kubeletReadOnlyPort === undefined,
    serverName: nodeName === "" ? hostname() : null,
    caFile: config.skipKubeletVerification === true ? null : (config.kubeletCaFile ?? `${SERVICE_ACCOUNT}/ca.crt`),
    tokenFile: anonymous ? null : (config.tokenFile ?? `${SERVICE_ACCOUNT}/token`),
    client: config.useAnonymousAuthentication === true ? null : client,
  };
}

/** What brokers may name beside processes; null where the configuration says nothing of it. */
export function makeKubeObjects(config: WorkloadAttestorsConfig, env: Environment): KubeObjectsOptions | null {
  const { k8s } = config;
  if (k8s?.broker === undefined) {
    return null;
  }
  const { accessPolicy, brokers } = k8s.broker;
  const client = apiClient(k8s, env);
  const kube = accessPolicy === "enforced" ? inPod(client) : client;
  const kubelet = kubeletOptions(k8s, env);
  const pods = new NodePods({
    list: () => kubeletPods(kubelet),
    clock: systemClock,
    maxAttempts: 1,
    retryMs: k8s.pollRetryInterval ?? K8S_DEFAULTS.pollRetryIntervalMs,
    podIsEnough: true,
  });
  const objects = new KubeObjects({
    kube,
    nodePods: () => pods.all(),
    clock: systemClock,
    namespaceLabels: k8s.enableNamespaceLabels === true,
    accessPolicy,
    brokers: new Map(brokers.map(({ id, podReferenceScope = "agent-node" }) => [id, podReferenceScope])),
  });
  return { objects, kube };
}

/** The Kubernetes API: as configured, else as a pod finds it; null where there is none. */
function apiClient({ apiServer }: K8sConfig, env: Environment): KubeClient | null {
  const cluster = apiServer === undefined ? inClusterConfig(env) : { ...apiServer, ...splitAddress(apiServer.address) };
  return cluster === null ? null : kubeClient(cluster);
}

function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(address.slice(colon + 1)) };
}

function inPod(client: KubeClient | null): KubeClient {
  if (client === null) {
    throw new EveryhopError("config-invalid", "`k8s` needs the Kubernetes API for this, and this is no pod", {
      hint: "name it as `apiServer: {address, caFile, tokenFile}`",
    });
  }
  return client;
}
