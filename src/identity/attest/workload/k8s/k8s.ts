/**
 * Selectors of a pod: `k8s:ns:NAME`, `k8s:sa:NAME`, `k8s:pod-label:KEY:VALUE` and so on (see pod.ts). The pod's uid and the container's
 * id come from the process's control group, what they are from the kubelet of this node. No process can choose them; who may
 * make pods in a namespace can choose their labels.
 */
import type { Clock } from "../../../../core/base/clock.ts";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { parseCgroups, processCgroupText } from "../../../../io/cgroup.ts";
import type { KubeClient } from "../../../../io/kube.ts";
import type { WorkloadAttestor } from "../attest.ts";
import { findContainer } from "../container.ts";
import { at, textRecord } from "../document.ts";
import { containerSelectors, namespaceSelectors, type Pod, podSelectors } from "./pod.ts";
import { NodePods } from "./pods.ts";

export interface K8sOptions {
  /** The pods of this node, from its kubelet. */
  readonly listPods: () => Promise<readonly Pod[]>;
  readonly clock: Clock;
  /** How often the kubelet is asked for a container, and how long to wait in between. */
  readonly maxPollAttempts: number;
  readonly pollRetryIntervalMs: number;
  readonly disableContainerSelectors: boolean;
  /** Where the labels of namespaces are to be had; null: there are no such selectors. */
  readonly namespaceLabels: KubeClient | null;
  /** The agent's own control groups; default: as the kernel says. */
  readonly ownCgroups?: () => string;
}

export const K8S_DEFAULTS = {
  maxPollAttempts: 60,
  pollRetryIntervalMs: 500,
  disableContainerSelectors: false,
} as const;

export function k8sAttestor(options: K8sOptions): WorkloadAttestor {
  const { ownCgroups = () => processCgroupText("self") } = options;
  const pods = new NodePods({
    list: options.listPods,
    clock: options.clock,
    maxAttempts: options.maxPollAttempts,
    retryMs: options.pollRetryIntervalMs,
    podIsEnough: options.disableContainerSelectors,
  });
  return {
    kind: "k8s",
    async attest({ cgroups }, needed) {
      const found = findContainer(parseCgroups(cgroups), parseCgroups(ownCgroups()));
      if (found === null) {
        return [];
      }
      const { pod, container } = await pods.find(found.id, found.podUid);
      const withContainer = container !== null && !options.disableContainerSelectors;
      return [
        ...podSelectors(pod),
        ...(withContainer ? containerSelectors(container) : []),
        ...(needed("k8s:ns-label:") ? await labelsOf(options.namespaceLabels, pod.namespace) : []),
      ];
    },
  };
}

/** The selectors of a namespace's labels. */
export async function labelsOf(kube: KubeClient | null, namespace: string): Promise<string[]> {
  if (kube === null) {
    return [];
  }
  const document = await kube.get(`/api/v1/namespaces/${encodeURIComponent(namespace)}`, METADATA_ONLY);
  const labels = textRecord(at(document, "metadata", "labels"));
  if (document === null || labels === null) {
    throw new EveryhopError("unavailable", `Kubernetes does not say which labels the namespace \`${namespace}\` has`);
  }
  return namespaceSelectors(labels);
}

/** Kubernetes sends an object's metadata alone. Source: Kubernetes API concepts, "Metadata-only fetches". */
export const METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
