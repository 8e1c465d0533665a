/**
 * PeerAuthentication: the narrowest scope wins, UNSET inherits, of several at one scope the oldest counts alone.
 * SOURCE: istio pilot/pkg/security/authn/policy_applier.go ComposePeerAuthentication.
 */
import type { MtlsMode, PeerAuthentication, Resource } from "./resources.ts";
import { hasLabels } from "./select.ts";

export interface MtlsModes {
  readonly mode: MtlsMode;
  /** By workload port. */
  readonly perPort: ReadonlyMap<number, MtlsMode>;
}

/** `selected`: the resources that select the workload, oldest first. */
export function composeMtls(selected: readonly Resource[], rootNamespace: string): MtlsModes {
  let mesh: PeerAuthentication | null = null;
  let namespace: PeerAuthentication | null = null;
  let workload: PeerAuthentication | null = null;
  for (const resource of selected) {
    if (resource.kind !== "PeerAuthentication") {
      continue;
    }
    if (hasLabels(resource)) {
      workload ??= resource;
    } else if (resource.namespace === rootNamespace) {
      mesh ??= resource;
    } else {
      namespace ??= resource;
    }
  }
  let mode: MtlsMode = "PERMISSIVE";
  for (const scope of [mesh, namespace, workload]) {
    if (scope !== null && scope.mode !== "UNSET") {
      mode = scope.mode;
    }
  }
  const perPort = new Map<number, MtlsMode>();
  for (const [port, given] of Object.entries(workload?.portLevelMtls ?? {})) {
    perPort.set(Number(port), given === "UNSET" ? mode : given);
  }
  return { mode, perPort };
}
