/** What every lint is given, and what it says. */
import type { Severity } from "../../base/errors.ts";
import type { Path } from "../../base/yaml.ts";
import type { MeshConfig } from "../mesh-config.ts";
import type { AuthorizationPolicy, Resource } from "../resources.ts";
import { selects, type WorkloadScope } from "../select.ts";

/** A workload as far as it is known; what is not known is not judged. */
export interface MeshWorkload extends WorkloadScope {
  readonly name?: string;
  /** The port in the mesh, and what is spoken there. */
  readonly port?: number;
  readonly protocol?: "http" | "http2" | "grpc" | "tcp";
  /** Its SPIFFE ID without `spiffe://`. */
  readonly principal?: string;
}

export interface LintContext {
  readonly resources: readonly Resource[];
  readonly policies: readonly AuthorizationPolicy[];
  readonly meshConfig: MeshConfig;
  /** Null where it is not known. */
  readonly trustDomain: string | null;
  /** Every workload of the mesh, where they are known. */
  readonly workloads: readonly MeshWorkload[] | null;
}

export interface Finding {
  readonly code: string;
  readonly severity: Exclude<Severity, "error">;
  readonly resource: Resource;
  /** Inside the resource, as `["spec", "rules", 0]`. */
  readonly path: Path;
  readonly message: string;
  readonly hint?: string;
}

/** The workloads a resource selects; null where the mesh's workloads are not known. */
export function selectedBy(resource: Resource, { workloads, meshConfig }: LintContext): readonly MeshWorkload[] | null {
  return workloads?.filter((workload) => selects(resource, workload, meshConfig.rootNamespace)) ?? null;
}

/** Names for people: `payment-service`, or where it has none `app=x in production`. */
export function workloadName({ name, namespace, labels }: MeshWorkload): string {
  const texts = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  return name ?? `${texts.join(",") || "every workload"} in ${namespace}`;
}
