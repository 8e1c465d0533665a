/** The immutable, versioned state of the mesh that everything pushed is derived from. */
import type { Kill, WorkloadDescription } from "../core/api/snapshot.ts";
import type { MeshConfig } from "../core/policy/mesh-config.ts";
import type { Resource } from "../core/policy/resources.ts";
import type { TrustDomain } from "../core/spiffe/id.ts";
import type { KeySets } from "./jwks.ts";
import type { Bundles } from "./opa-bundles.ts";
import { type Service, serviceId } from "./service.ts";

export interface World {
  /** Grows by one with each accepted change. */
  readonly version: number;
  readonly trustDomain: TrustDomain;
  readonly meshConfig: MeshConfig;
  /** The same as it was given, Istio's names. */
  readonly meshConfigJson: string;
  readonly services: readonly Service[];
  readonly policies: readonly Resource[];
  readonly kills: readonly Kill[];
  readonly keySets: KeySets;
  readonly bundles: Bundles;
}

export function describeWorkload(service: Service, domain: TrustDomain): WorkloadDescription {
  const { name, namespace, serviceAccount, labels, port, protocol } = service;
  return { name, namespace, serviceAccount, labels, port, protocol, spiffeId: serviceId(service, domain) };
}
