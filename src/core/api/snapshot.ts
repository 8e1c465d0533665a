/**
 * What one sidecar needs of a World, after the wire form (proto/everyhop/proxy/snapshot.proto) was checked. Everything a
 * decision uses is in here; what only this machine knows (addresses to listen on, the service's process) is in the
 * sidecar's own configuration.
 */
import type { SpiffeId, TrustDomain } from "../spiffe/id.ts";

export type Protocol = "http" | "http2" | "grpc" | "tcp";

export interface WorkloadDescription {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spiffeId: SpiffeId;
  /** The port in the mesh: what others ask for and what `ports` in a policy means. */
  readonly port: number;
  readonly protocol: Protocol;
}

export interface Upstream {
  readonly name: string;
  readonly namespace: string;
  /** The only identity its server may prove. */
  readonly spiffeId: SpiffeId;
  readonly port: number;
  readonly protocol: Protocol;
  readonly labels: Readonly<Record<string, string>>;
  /** `address:port` of each inbound listener. */
  readonly endpoints: readonly string[];
}

export interface Kill {
  readonly order: string;
  readonly spiffeId: SpiffeId;
}

export interface Snapshot {
  readonly version: number;
  readonly trustDomain: TrustDomain;
  /** meshConfig as JSON, Istio's names; core/policy/mesh-config reads it. */
  readonly meshConfig: string;
  readonly workload: WorkloadDescription;
  readonly upstreams: readonly Upstream[];
  /** The resources that select the workload, as JSON, in deciding order; core/policy/parse reads them. */
  readonly policies: readonly string[];
  readonly kills: readonly Kill[];
  /** Key sets by the `jwksUri` that names them. */
  readonly keySets: ReadonlyMap<string, string>;
  /** OPA bundles by the path that meshConfig names them by. */
  readonly bundles: ReadonlyMap<string, Uint8Array>;
}

export const SNAPSHOT_TYPE = "type.googleapis.com/everyhop.proxy.v1.Snapshot";

/** Name of a workload's snapshot, and the node id under which its sidecar asks for it. */
export function snapshotName(workload: { readonly namespace: string; readonly name: string }): string {
  return `${workload.namespace}/${workload.name}`;
}
