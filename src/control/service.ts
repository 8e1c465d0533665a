import type { Protocol } from "../core/api/snapshot.ts";
import { type SpiffeId, type TrustDomain, workloadId } from "../core/spiffe/id.ts";

/** A service of the mesh as its operator registered it. */
export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The port in the mesh. */
  readonly port: number;
  readonly protocol: Protocol;
  /** `address:port` of each inbound listener of its sidecars. */
  readonly endpoints: readonly string[];
  /** Its identity, where it is not the one Istio would form. */
  readonly spiffeId?: SpiffeId;
}

export function serviceId(service: Service, domain: TrustDomain): SpiffeId {
  return service.spiffeId ?? workloadId(domain, service.namespace, service.serviceAccount);
}
