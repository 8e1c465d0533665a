/** Which workload a broker names, and the ends of calls that say something of it. SPEC: Broker API §3.1, §4.8. */
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { status as Status } from "@grpc/grpc-js";
import {
  KubernetesObjectReferenceSchema,
  WorkloadPIDReferenceSchema,
  type WorkloadReference,
} from "../../gen/spiffe/broker/api_pb.js";
import {
  describeReference,
  type ObjectReference,
  objectReferenceFault,
} from "../attest/workload/k8s/object-reference.ts";
import { brokerEnd, type CallEnd, Ended } from "./answer.ts";

export type NamedWorkload =
  | { readonly kind: "process"; readonly pid: number }
  | { readonly kind: "object"; readonly reference: ObjectReference };

/** Errors: `Ended` where it is no reference, or of a type that is not known. */
export function readReference(wanted: WorkloadReference | undefined): NamedWorkload {
  const any = wanted?.reference;
  const process = any === undefined ? undefined : unpack(any, WorkloadPIDReferenceSchema);
  if (process !== undefined) {
    if (process.pid <= 0) {
      throw new Ended(invalidReference("the process id must be positive", { pid: String(process.pid) }));
    }
    return { kind: "process", pid: process.pid };
  }
  const object = any === undefined ? undefined : unpack(any, KubernetesObjectReferenceSchema);
  if (object === undefined) {
    const types = "spiffe.broker.WorkloadPIDReference or spiffe.broker.KubernetesObjectReference";
    throw new Ended(invalidReference(`a workload reference of the type ${types} is required`));
  }
  const { type, key, uid } = object;
  const reference: ObjectReference = {
    plural: type?.plural ?? "",
    group: type?.group ?? "",
    namespace: key?.namespace ?? "",
    name: key?.name ?? "",
    uid,
  };
  const fault = key !== undefined && key.name === "" ? "a key needs a name" : objectReferenceFault(reference);
  if (fault !== null) {
    throw new Ended(invalidReference(fault));
  }
  return { kind: "object", reference };
}

function unpack<S extends typeof WorkloadPIDReferenceSchema | typeof KubernetesObjectReferenceSchema>(
  any: Parameters<typeof anyUnpack>[0],
  schema: S,
) {
  try {
    return anyUnpack(any, schema);
  } catch {
    return undefined;
  }
}

export function invalidReference(message: string, metadata: Readonly<Record<string, string>> = {}): CallEnd {
  return brokerEnd(Status.INVALID_ARGUMENT, message, "WORKLOAD_REFERENCE_INVALID", metadata);
}

export function notFound(named: NamedWorkload): CallEnd {
  const message =
    named.kind === "process"
      ? `no workload with the process id ${named.pid}`
      : `no Kubernetes object ${describeReference(named.reference)}`;
  return brokerEnd(Status.NOT_FOUND, message, "WORKLOAD_NOT_FOUND", metadataOf(named));
}

export function notEntitled(named: NamedWorkload): CallEnd {
  return brokerEnd(Status.PERMISSION_DENIED, "no identity issued", "WORKLOAD_NOT_ENTITLED", metadataOf(named));
}

function metadataOf(named: NamedWorkload): Record<string, string> {
  return named.kind === "process"
    ? { pid: String(named.pid) }
    : {
        object: describeReference(named.reference),
        ...(named.reference.uid === "" ? {} : { uid: named.reference.uid }),
      };
}
