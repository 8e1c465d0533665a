/**
 * Istio's security resources (`security.istio.io/v1`) after parsing: what admission let through, with defaults filled in.
 * SOURCE: istio/api security/v1beta1/{authorization_policy,peer_authentication,request_authentication}.proto
 */
import type { Place } from "../base/errors.ts";

export type ResourceKind = "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication";

interface ResourceBase {
  readonly name: string;
  readonly namespace: string;
  /** When it was made, in milliseconds since the epoch; null where nobody said: it is then as old as `order` says. */
  readonly createdMs: number | null;
  /** Position among everything parsed together: the order of files and of documents in them. */
  readonly order: number;
  readonly place: Place;
  /** Labels a workload must have; null where the resource has no selector. An empty selector selects all. */
  readonly selector: Readonly<Record<string, string>> | null;
  readonly targetRefs: readonly TargetRef[];
}

export interface TargetRef {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
}

export type Action = "ALLOW" | "DENY" | "AUDIT" | "CUSTOM";

export interface AuthorizationPolicy extends ResourceBase {
  readonly kind: "AuthorizationPolicy";
  readonly action: Action;
  /** Name of an extension provider; CUSTOM only. */
  readonly provider: string | null;
  readonly dryRun: boolean;
  readonly rules: readonly Rule[];
}

/** `from`: any of them; `to`: any of them; `when`: all of them. An empty list is no condition. */
export interface Rule {
  readonly from: readonly Source[];
  readonly to: readonly Operation[];
  readonly when: readonly Condition[];
}

export const SOURCE_FIELDS = [
  "principals",
  "notPrincipals",
  "requestPrincipals",
  "notRequestPrincipals",
  "namespaces",
  "notNamespaces",
  "serviceAccounts",
  "notServiceAccounts",
  "trustDomains",
  "notTrustDomains",
  "ipBlocks",
  "notIpBlocks",
  "remoteIpBlocks",
  "notRemoteIpBlocks",
] as const;
export type SourceField = (typeof SOURCE_FIELDS)[number];
/** Only fields with at least one value are there. */
export type Source = { readonly [field in SourceField]?: readonly string[] };

export const OPERATION_FIELDS = [
  "hosts",
  "notHosts",
  "ports",
  "notPorts",
  "methods",
  "notMethods",
  "paths",
  "notPaths",
] as const;
export type OperationField = (typeof OPERATION_FIELDS)[number];
/** Only fields with at least one value are there. */
export type Operation = { readonly [field in OperationField]?: readonly string[] };

export interface Condition {
  readonly key: string;
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

export type MtlsMode = "STRICT" | "PERMISSIVE" | "DISABLE";

export interface PeerAuthentication extends ResourceBase {
  readonly kind: "PeerAuthentication";
  readonly mode: MtlsMode | "UNSET";
  /** By workload port. */
  readonly portLevelMtls: Readonly<Record<string, MtlsMode | "UNSET">>;
}

export interface RequestAuthentication extends ResourceBase {
  readonly kind: "RequestAuthentication";
  readonly jwtRules: readonly JwtRule[];
}

export interface JwtRule {
  readonly issuer: string;
  readonly audiences: readonly string[];
  readonly jwksUri: string | null;
  /** A JSON Web Key Set as text. */
  readonly jwks: string | null;
  readonly fromHeaders: readonly { readonly name: string; readonly prefix: string }[];
  readonly fromParams: readonly string[];
  readonly fromCookies: readonly string[];
  readonly outputPayloadToHeader: string | null;
  readonly forwardOriginalToken: boolean;
  readonly outputClaimToHeaders: readonly { readonly header: string; readonly claim: string }[];
  readonly timeoutMs: number;
  readonly spaceDelimitedClaims: readonly string[];
}

export type Resource = AuthorizationPolicy | PeerAuthentication | RequestAuthentication;

/** Unique among resources in force together: `AuthorizationPolicy production/payment-service-access`. */
export function resourceKey(resource: Pick<Resource, "kind" | "namespace" | "name">): string {
  return `${resource.kind} ${resource.namespace}/${resource.name}`;
}

/**
 * Oldest first. Unknown age is younger than any known one, and goes by the order they were given in; of the same known
 * time the name decides. SOURCE: istio pilot/pkg/model/config.go sortConfigByCreationTime.
 */
export function compareAge(a: Resource, b: Resource): number {
  const [ageA, ageB] = [a.createdMs ?? Number.POSITIVE_INFINITY, b.createdMs ?? Number.POSITIVE_INFINITY];
  if (ageA !== ageB) {
    return ageA < ageB ? -1 : 1;
  }
  const named = (one: Resource): string => (one.createdMs === null ? "" : `${one.name}\0${one.namespace}`);
  const [nameA, nameB] = [named(a), named(b)];
  return nameA === nameB ? a.order - b.order : nameA < nameB ? -1 : 1;
}
