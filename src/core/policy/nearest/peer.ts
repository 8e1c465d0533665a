/** Where the connection itself was refused: the PeerAuthentication that decides about it, made PERMISSIVE. */
import { formatPointer, type PatchOperation } from "../../base/json-patch.ts";
import { composeMtls } from "../mtls.ts";
import type { PeerAuthentication } from "../resources.ts";
import { hasLabels } from "../select.ts";
import { type NearestMiss, nameOf, patched, type Scene } from "./scene.ts";

export function peerChange({ compiled, peer }: Scene): NearestMiss | null {
  const { peerAuthentications, mesh } = compiled;
  const { rootNamespace } = mesh.meshConfig;
  const deciding = decidingResource(peerAuthentications, rootNamespace, peer.port);
  if (deciding === null) {
    return null;
  }
  const { resource, path } = deciding;
  const patch: PatchOperation[] = [{ op: "replace", path: formatPointer(path), value: "PERMISSIVE" }];
  const next = patched(resource, patch);
  const modes =
    next === null
      ? null
      : composeMtls(
          peerAuthentications.map((each) => (each === resource ? next : each)),
          rootNamespace,
        );
  if (modes === null || (modes.perPort.get(peer.port) ?? modes.mode) !== "PERMISSIVE") {
    return null;
  }
  const other = peer.principal === null ? "the caller used mutual TLS" : "the caller used no TLS";
  const would = `be accepted if ${other}, or \`${path.slice(1).join(".")}\` were \`PERMISSIVE\``;
  return { kind: resource.kind, policy: nameOf(resource), rule: null, would, patch };
}

/** SOURCE of the order: `composeMtls`. Where nothing is said, nothing is refused. */
function decidingResource(
  resources: readonly PeerAuthentication[],
  rootNamespace: string,
  port: number,
): { readonly resource: PeerAuthentication; readonly path: readonly string[] } | null {
  const workload = resources.find(hasLabels);
  const byPort = workload?.portLevelMtls[String(port)];
  if (workload !== undefined && byPort !== undefined && byPort !== "UNSET") {
    return { resource: workload, path: ["spec", "portLevelMtls", String(port), "mode"] };
  }
  const wide = resources.filter((resource) => !hasLabels(resource));
  const namespace = wide.find((resource) => resource.namespace !== rootNamespace);
  const mesh = wide.find((resource) => resource.namespace === rootNamespace);
  const resource = [workload, namespace, mesh].find((each) => each !== undefined && each.mode !== "UNSET");
  return resource === undefined ? null : { resource, path: ["spec", "mtls", "mode"] };
}
