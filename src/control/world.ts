/** The immutable, versioned state of the mesh that everything pushed is derived from. */
import type { Kill, WorkloadDescription } from "../core/api/snapshot.ts";
import type { TrustDomain } from "../core/spiffe/id.ts";
import type { Policy } from "./policies.ts";
import { type Service, serviceId } from "./service.ts";

export interface World {
  /** Grows by one with each accepted change. */
  readonly version: number;
  readonly trustDomain: TrustDomain;
  /** meshConfig as JSON, Istio's names. */
  readonly meshConfig: string;
  readonly services: readonly Service[];
  readonly policies: readonly Policy[];
  readonly kills: readonly Kill[];
}

export function describeWorkload(service: Service, domain: TrustDomain): WorkloadDescription {
  const { name, namespace, serviceAccount, labels, port, protocol } = service;
  return { name, namespace, serviceAccount, labels, port, protocol, spiffeId: serviceId(service, domain) };
}
