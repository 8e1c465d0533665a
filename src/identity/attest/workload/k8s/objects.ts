/**
 * Kubernetes objects as workloads: which selectors the object has that a broker names. A pod has those that its processes have (but
 * for the container's); any other object has what its metadata says: `k8s:resource:deployments.apps`, `k8s:key:shop/checkout` and
 * so on. Nobody but who may write the object can choose them.
 */
import type { Clock } from "../../../../core/base/clock.ts";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { type Selector, selectorFault } from "../../../../core/entries/selector.ts";
import type { KubeClient } from "../../../../io/kube.ts";
import { at, listAt, textAt } from "../document.ts";
import { apiVersionOf, collectionPath, Discovery, type Resource } from "./discovery.ts";
import { labelsOf, METADATA_ONLY } from "./k8s.ts";
import { describeReference, invalidReference, type ObjectReference, objectReferenceFault } from "./object-reference.ts";
import { type ObjectMeta, type Pod, podSelectors, readObjectMeta, readPod } from "./pod.ts";

export type PodScope = "agent-node" | "cluster";

export interface ObjectsOptions {
  /** Null: there is no API to ask, and objects other than this node's pods are not found. */
  readonly kube: KubeClient | null;
  /** The pods of this node; null: its kubelet is not asked. */
  readonly nodePods: (() => Promise<readonly Pod[]>) | null;
  readonly clock: Clock;
  readonly namespaceLabels: boolean;
  /**
   * Who may name objects, with the scope of pods. `enforced`: each object that is named is also authorised by Kubernetes, for the
   * broker's SPIFFE ID as user name and SPIRE's verb `impersonate-via-spire`.
   */
  readonly accessPolicy: "enforced" | "permissive";
  readonly brokers: ReadonlyMap<string, PodScope>;
}

export interface ResolvedObject {
  readonly selectors: readonly Selector[];
  readonly uid: string;
  /** Where changes of it are told; null: it is looked at now and then. */
  readonly watchPath: string | null;
}

const VERB = "impersonate-via-spire";
const REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const PAGE = 500;
/** An object named by its uid alone is looked for among so many pages. */
const MAX_PAGES = 200;
const LIST_METADATA_ONLY = METADATA_ONLY.replace("PartialObjectMetadata", "PartialObjectMetadataList");

export class KubeObjects {
  readonly #options: ObjectsOptions;
  readonly #discovery: Discovery | null;

  constructor(options: ObjectsOptions) {
    this.#options = options;
    this.#discovery = options.kube === null ? null : new Discovery(options.kube, options.clock);
  }

  /**
   * The object that `broker` names. Errors: `invalid-argument` (no reference to an object that could exist), `not-found`,
   * `permission-denied` (this broker may not name it), `unavailable`.
   */
  async resolve(reference: ObjectReference, broker: string): Promise<ResolvedObject> {
    const fault = objectReferenceFault(reference);
    if (fault !== null) {
      throw invalidReference(fault);
    }
    const scope = this.#options.brokers.get(broker);
    if (scope === undefined) {
      throw new EveryhopError("permission-denied", `\`${broker}\` may not name Kubernetes objects`);
    }
    // Where it is named by its key, who may not name it does not learn either whether it exists.
    if (reference.name !== "") {
      await this.#authorize(reference, reference, broker);
    }
    const isPod = reference.plural === "pods" && reference.group === "core";
    const found = isPod ? await this.#pod(reference, scope) : await this.#object(reference);
    if (reference.uid !== "" && found.meta.uid.toLowerCase() !== reference.uid.toLowerCase()) {
      throw notFound(reference);
    }
    if (reference.name === "") {
      await this.#authorize(reference, found.meta, broker);
    }
    const { namespace, uid } = found.meta;
    const labels =
      this.#options.namespaceLabels && namespace !== "" ? await labelsOf(this.#options.kube, namespace) : [];
    const selectors = [...found.selectors, ...labels].filter((selector) => selectorFault(selector) === null);
    return { selectors: [...new Set(selectors as Selector[])].sort(), uid, watchPath: found.watchPath };
  }

  async #authorize(
    { plural, group }: ObjectReference,
    { namespace, name }: Pick<ObjectMeta, "namespace" | "name">,
    broker: string,
  ): Promise<void> {
    const { accessPolicy, kube } = this.#options;
    if (accessPolicy === "permissive") {
      return;
    }
    const attributes = { verb: VERB, group: group === "core" ? "" : group, resource: plural, namespace, name };
    const review = await required(kube).post(REVIEWS, {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SubjectAccessReview",
      spec: { user: broker, resourceAttributes: attributes },
    });
    if (at(review, "status", "allowed") !== true || at(review, "status", "denied") === true) {
      throw new EveryhopError("permission-denied", `Kubernetes does not let \`${broker}\` act for ${plural}.${group}`, {
        hint: `give the user \`${broker}\` the verb \`${VERB}\` on it`,
      });
    }
  }

  async #pod(reference: ObjectReference, scope: PodScope): Promise<Found> {
    const { namespace, name, uid } = reference;
    if (name !== "" && namespace === "") {
      throw invalidReference("a pod's key needs a namespace");
    }
    const local = await this.#nodePods(scope);
    const pod = local.find((one) =>
      name === "" ? one.uid === uid.toLowerCase() : one.namespace === namespace && one.name === name,
    );
    if (pod !== undefined) {
      return { meta: pod, selectors: podSelectors(pod), watchPath: null };
    }
    if (scope === "agent-node") {
      throw notFound(reference);
    }
    const resource = { plural: "pods", group: "core", version: "v1", kind: "Pod", namespaced: true };
    const key = name === "" ? await this.#byUid(resource, reference) : { namespace, name };
    const path = `${collectionPath(resource, key.namespace)}/${encodeURIComponent(key.name)}`;
    const far = readPod(await required(this.#options.kube).get(path));
    if (far === null) {
      throw notFound(reference);
    }
    return { meta: far, selectors: podSelectors(far), watchPath: watchPath(resource, far) };
  }

  async #nodePods(scope: PodScope): Promise<readonly Pod[]> {
    const { nodePods } = this.#options;
    if (nodePods === null) {
      return [];
    }
    return scope === "agent-node" ? nodePods() : nodePods().catch(() => []);
  }

  async #object(reference: ObjectReference): Promise<Found> {
    const { plural, group, namespace, name } = reference;
    const { kube } = this.#options;
    const resource = await required(this.#discovery).find(plural, group);
    if (name !== "" && resource.namespaced !== (namespace !== "")) {
      throw invalidReference(
        resource.namespaced ? `${plural}.${group} needs a namespace` : `${plural}.${group} has no namespaces`,
      );
    }
    const path = `${collectionPath(resource, namespace)}/${encodeURIComponent(name)}`;
    const meta =
      name === ""
        ? await this.#byUid(resource, reference)
        : readObjectMeta(await required(kube).get(path, METADATA_ONLY));
    if (meta === null) {
      throw notFound(reference);
    }
    return { meta, selectors: objectSelectors(resource, meta), watchPath: watchPath(resource, meta) };
  }

  /** Kubernetes has no index by uid: the list is read page by page, names and labels alone. */
  async #byUid(resource: Resource, reference: ObjectReference): Promise<ObjectMeta> {
    const path = collectionPath(resource, "");
    let next = "";
    for (let page = 0; page < MAX_PAGES; page++) {
      const query = `?limit=${PAGE}${next === "" ? "" : `&continue=${encodeURIComponent(next)}`}`;
      const list = await required(this.#options.kube).get(`${path}${query}`, LIST_METADATA_ONLY);
      const found = listAt(list, "items").find((one) => textAt(one, "metadata", "uid") === reference.uid.toLowerCase());
      const meta = found === undefined ? null : readObjectMeta(found);
      if (meta !== null) {
        return meta;
      }
      next = textAt(list, "metadata", "continue");
      if (next === "") {
        break;
      }
    }
    throw notFound(reference);
  }
}

interface Found {
  readonly meta: ObjectMeta;
  readonly selectors: readonly string[];
  readonly watchPath: string | null;
}

function watchPath(resource: Resource, { namespace, name }: ObjectMeta): string {
  return `${collectionPath(resource, namespace)}?watch=true&fieldSelector=${encodeURIComponent(`metadata.name=${name}`)}`;
}

/** Spellings are SPIRE's. The version of an owner is no part of which object it is. */
export function objectSelectors(resource: Resource, meta: ObjectMeta): string[] {
  const { plural, group, version, kind } = resource;
  const key = meta.namespace === "" ? meta.name : `${meta.namespace}/${meta.name}`;
  const owners = meta.owners.flatMap((owner) => {
    const slash = owner.apiVersion.indexOf("/");
    const of = `${slash < 0 ? "core" : owner.apiVersion.slice(0, slash)}/${owner.kind}`;
    return [
      `k8s:owner-key:${of}/${owner.name}`,
      `k8s:owner-uid:${of}/${owner.uid}`,
      ...(owner.controller ? [`k8s:controller-key:${of}/${owner.name}`, `k8s:controller-uid:${of}/${owner.uid}`] : []),
    ];
  });
  return [
    `k8s:uid:${meta.uid}`,
    `k8s:resource:${plural}.${group}`,
    `k8s:plural:${plural}`,
    `k8s:group:${group}`,
    `k8s:version:${version}`,
    `k8s:apiVersion:${apiVersionOf(resource)}`,
    `k8s:kind:${kind}`,
    `k8s:name:${meta.name}`,
    ...(meta.namespace === "" ? [] : [`k8s:namespace:${meta.namespace}`]),
    `k8s:key:${key}`,
    ...Object.entries(meta.labels).map(([name, value]) => `k8s:label:${name}:${value}`),
    ...owners,
  ];
}

function notFound(reference: ObjectReference): EveryhopError {
  return new EveryhopError("not-found", `Kubernetes has no ${describeReference(reference)}`);
}

function required<T>(part: T | null): T {
  if (part === null) {
    throw new EveryhopError("unavailable", "the agent does not know where the Kubernetes API is", {
      hint: "in a pod it finds it; elsewhere name it as `workloadAttestors.k8s.apiServer`",
    });
  }
  return part;
}
