/** What a search for the nearest miss is about: one denied request, and the policies as they are. */
import { applyPatch, type PatchOperation } from "../../base/json-patch.ts";
import type { CompiledPolicy } from "../compile.ts";
import { viewOf } from "../evaluate.ts";
import { type HttpFacts, type Peer, type PeerFacts, peerOf } from "../facts.ts";
import { parseResourceJson, resourceDocument } from "../parse.ts";
import type { AuthorizationPolicy, Resource } from "../resources.ts";
import { type CompiledRule, compileRule, type FieldTest, type Layer } from "../rules.ts";
import type { HttpView, TestContext } from "../tests.ts";

/** One change of one resource. */
export interface NearestMiss {
  readonly kind: Resource["kind"];
  /** `namespace/name` of the resource. */
  readonly policy: string;
  /** Null where it is not about a rule. */
  readonly rule: number | null;
  /** Follows "would": `be allowed if \`methods\` included \`PUT\``. */
  readonly would: string;
  /** SPEC: RFC 6902, on that resource. */
  readonly patch: readonly PatchOperation[];
}

/** One change of one field. */
export interface Edit {
  readonly text: string;
  readonly patch: readonly PatchOperation[];
}

export interface Scene {
  readonly compiled: CompiledPolicy;
  /** The mesh's own trust domain, then its aliases. */
  readonly domains: readonly string[];
  readonly peerFacts: PeerFacts;
  readonly peer: Peer;
  /** Null on TCP. */
  readonly view: HttpView | null;
}

export function sceneOf(compiled: CompiledPolicy, peerFacts: PeerFacts, request: HttpFacts | null): Scene {
  const peer = peerOf(peerFacts);
  const { trustDomain, meshConfig } = compiled.mesh;
  return {
    compiled,
    domains: [trustDomain, ...meshConfig.trustDomainAliases],
    peerFacts,
    peer,
    view: request === null ? null : { ...viewOf(request, peer) },
  };
}

export const layerOf = (scene: Scene): Layer => (scene.view === null ? "tcp" : "http");

export const contextOf = (scene: Scene, policy: AuthorizationPolicy): TestContext => ({
  policyNamespace: policy.namespace,
  trustDomains: scene.domains,
});

export const nameOf = ({ namespace, name }: Resource): string => `${namespace}/${name}`;

/** The policies of one action that are in force. */
export function enforced(scene: Scene, action: AuthorizationPolicy["action"]): readonly AuthorizationPolicy[] {
  return scene.compiled.policies.filter((policy) => policy.action === action && !policy.dryRun);
}

/** The rules of one action in force on this layer, compiled already. */
export function compiledRules(scene: Scene, action: "allow" | "deny"): readonly CompiledRule[] {
  const sets = layerOf(scene) === "tcp" ? scene.compiled.tcp : scene.compiled.http;
  return sets[action].rules;
}

/** The rules of a policy, one that is not in force perhaps, on this layer. */
export function rulesIn(scene: Scene, policy: AuthorizationPolicy): readonly CompiledRule[] {
  return policy.rules
    .map((_, index) => compileRule(policy, index, layerOf(scene), scene.domains))
    .filter((rule) => rule !== null);
}

export const holdsAll = (scene: Scene, tests: readonly FieldTest[]): boolean =>
  tests.every(({ test }) => test(scene.peer, scene.view));

/** The resource as it would be; null where the patch does not fit, or admission would refuse the outcome. */
export function patched<R extends Resource>(resource: R, patch: readonly PatchOperation[]): R | null {
  try {
    const document = applyPatch(resourceDocument(resource), patch);
    const parsed = parseResourceJson(
      JSON.stringify({ order: resource.order, place: resource.place, resource: document }),
    );
    return parsed.kind === resource.kind ? (parsed as R) : null;
  } catch {
    return null;
  }
}
