/** What Kubernetes says of a pod, and the selectors it has. Spellings are SPIRE's. */
import { EveryhopError } from "../../../../core/base/errors.ts";
import { at, isRecord, listAt, textAt, textRecord } from "../document.ts";

export interface Owner {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller: boolean;
}

export interface ObjectMeta {
  readonly uid: string;
  readonly name: string;
  /** Empty for what belongs to the cluster. */
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly owners: readonly Owner[];
}

export interface Pod extends ObjectMeta {
  readonly serviceAccount: string;
  readonly nodeName: string;
  readonly containers: readonly PodContainer[];
  readonly initContainers: readonly PodContainer[];
  /** Put into a running pod by somebody who debugs it. */
  readonly ephemeralContainers: readonly PodContainer[];
}

export interface PodContainer {
  /** The runtime's, without its `containerd://`; empty while it is not started. */
  readonly id: string;
  readonly name: string;
  readonly image: string;
  readonly imageId: string;
}

const MAX_PODS = 10_000;

/** Reads a PodList; pods without a name, namespace or uid are left out. Errors: `unavailable` where it is no such list. */
export function readPods(document: unknown): Pod[] {
  const items = at(document, "items");
  // A kubelet without pods writes null.
  if (!isRecord(document) || !(Array.isArray(items) || items === null) || (items ?? []).length > MAX_PODS) {
    throw new EveryhopError("unavailable", "the answer is no list of pods");
  }
  return (items ?? []).flatMap((item) => readPod(item) ?? []);
}

export function readPod(document: unknown): Pod | null {
  const meta = readObjectMeta(document);
  return meta === null || meta.namespace === ""
    ? null
    : {
        ...meta,
        serviceAccount: textAt(document, "spec", "serviceAccountName"),
        nodeName: textAt(document, "spec", "nodeName"),
        containers: listAt(document, "status", "containerStatuses").map(readContainer),
        initContainers: listAt(document, "status", "initContainerStatuses").map(readContainer),
        ephemeralContainers: listAt(document, "status", "ephemeralContainerStatuses").map(readContainer),
      };
}

/** The metadata of any object; null where it has no uid or name, or is of another form. */
export function readObjectMeta(document: unknown): ObjectMeta | null {
  const uid = textAt(document, "metadata", "uid");
  const name = textAt(document, "metadata", "name");
  const labels = textRecord(at(document, "metadata", "labels"));
  return uid === "" || name === "" || labels === null
    ? null
    : {
        uid,
        name,
        labels,
        namespace: textAt(document, "metadata", "namespace"),
        owners: listAt(document, "metadata", "ownerReferences").map((owner) => ({
          apiVersion: textAt(owner, "apiVersion"),
          kind: textAt(owner, "kind"),
          name: textAt(owner, "name"),
          uid: textAt(owner, "uid"),
          controller: at(owner, "controller") === true,
        })),
      };
}

function readContainer(status: unknown): PodContainer {
  const id = textAt(status, "containerID");
  return {
    id: id.slice(id.indexOf("://") + (id.includes("://") ? 3 : 1)),
    name: textAt(status, "name"),
    image: textAt(status, "image"),
    imageId: textAt(status, "imageID"),
  };
}

export function podSelectors(pod: Pod): string[] {
  return [
    `k8s:ns:${pod.namespace}`,
    `k8s:sa:${pod.serviceAccount}`,
    `k8s:node-name:${pod.nodeName}`,
    `k8s:pod-uid:${pod.uid}`,
    `k8s:pod-name:${pod.name}`,
    `k8s:pod-image-count:${pod.containers.length}`,
    `k8s:pod-init-image-count:${pod.initContainers.length}`,
    ...pod.containers.flatMap((container) => imageSelectors("k8s:pod-image", container)),
    ...pod.initContainers.flatMap((container) => imageSelectors("k8s:pod-init-image", container)),
    ...Object.entries(pod.labels).map(([key, value]) => `k8s:pod-label:${key}:${value}`),
    ...pod.owners.flatMap(({ kind, name, uid }) => [
      `k8s:pod-owner:${kind}:${name}`,
      `k8s:pod-owner-uid:${kind}:${uid}`,
    ]),
  ];
}

export function containerSelectors(container: PodContainer): string[] {
  return [`k8s:container-name:${container.name}`, ...imageSelectors("k8s:container-image", container)];
}

export function namespaceSelectors(labels: Readonly<Record<string, string>>): string[] {
  return Object.entries(labels).map(([key, value]) => `k8s:ns-label:${key}:${value}`);
}

/** By name and by digest: a name may be of several images, and of another one tomorrow. */
function imageSelectors(prefix: string, { image, imageId }: PodContainer): string[] {
  return [image, imageId].filter((one) => one !== "").map((one) => `${prefix}:${one}`);
}
