/** Naming a Kubernetes object, as the SPIFFE Broker API does. SPEC: Broker API §3.1.3. */
import { EveryhopError } from "../../../../core/base/errors.ts";

export interface ObjectReference {
  /** As `deployments`. */
  readonly plural: string;
  /** As `apps`; `core` for the core group. */
  readonly group: string;
  /** Empty for what belongs to the cluster, and where only the uid is given. */
  readonly namespace: string;
  /** Empty where only the uid is given. */
  readonly name: string;
  /** Empty where only the name is given. */
  readonly uid: string;
}

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
/** Kubernetes forbids these in a path segment, whatever the resource. */
const NOT_A_NAME = /^\.{0,2}$|[/%\p{Cc}]/u;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Why a reference is none; null where it is one. Its object may still not exist. */
export function objectReferenceFault(reference: ObjectReference): string | null {
  const { plural, group, namespace, name, uid } = reference;
  if (!DNS_NAME.test(plural)) {
    return "the type's plural is missing, or no resource's";
  }
  if (!DNS_NAME.test(group)) {
    return "the type's group is missing (`core` for the core group), or no API group";
  }
  if (name === "" && uid === "") {
    return "a key or a uid is required";
  }
  if (name === "" && namespace !== "") {
    return "a key needs a name";
  }
  if (namespace !== "" && !DNS_LABEL.test(namespace)) {
    return "the key's namespace is no namespace's name";
  }
  if (name !== "" && (NOT_A_NAME.test(name) || name.length > 253)) {
    return "the key's name is no object's name";
  }
  return uid === "" || UUID.test(uid) ? null : "the uid is no UUID";
}

/** For people: `deployments.apps shop/checkout`. */
export function describeReference({ plural, group, namespace, name, uid }: ObjectReference): string {
  const key = name === "" ? uid : namespace === "" ? name : `${namespace}/${name}`;
  return `${plural}.${group} ${key}`;
}

export function invalidReference(message: string): EveryhopError {
  return new EveryhopError("invalid-argument", message);
}
