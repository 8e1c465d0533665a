/** Which resources are in force at a workload, and in which order they decide. */
import type { MeshConfig } from "./mesh-config.ts";
import { compareAge, type Resource } from "./resources.ts";

export interface WorkloadScope {
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * The resources of the root namespace and of the workload's own that select it, oldest first.
 * SOURCE: istio pilot/pkg/model/policyattachment.go (sidecars ignore what has targetRefs); authentication.go (a
 * PeerAuthentication with a selector in the root namespace is ignored).
 */
export function selectResources(
  resources: readonly Resource[],
  workload: WorkloadScope,
  meshConfig: Pick<MeshConfig, "rootNamespace">,
): readonly Resource[] {
  return resources.filter((resource) => selects(resource, workload, meshConfig.rootNamespace)).sort(compareAge);
}

export function selects(resource: Resource, workload: WorkloadScope, rootNamespace: string): boolean {
  const isRoot = resource.namespace === rootNamespace;
  if (!isRoot && resource.namespace !== workload.namespace) {
    return false;
  }
  if (resource.targetRefs.length > 0) {
    return false;
  }
  if (resource.kind === "PeerAuthentication" && isRoot && hasLabels(resource)) {
    return false;
  }
  return matchesLabels(resource.selector, workload.labels);
}

export function hasLabels(resource: Resource): boolean {
  return resource.selector !== null && Object.keys(resource.selector).length > 0;
}

function matchesLabels(selector: Resource["selector"], labels: Readonly<Record<string, string>>): boolean {
  if (selector === null) {
    return true;
  }
  for (const key of Object.keys(selector)) {
    if (!Object.hasOwn(labels, key) || labels[key] !== selector[key]) {
      return false;
    }
  }
  return true;
}
