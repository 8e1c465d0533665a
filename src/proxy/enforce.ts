/** What the data path asks the policy: one compiled policy for each snapshot. */
import type { NearestMiss } from "../core/api/admin.ts";
import type { Snapshot } from "../core/api/snapshot.ts";
import { compile } from "../core/policy/compile.ts";
import { decideHttp, decideTcp, mtlsMode } from "../core/policy/evaluate.ts";
import type { HttpFacts, Peer, PeerFacts } from "../core/policy/facts.ts";
import { type ExtensionProvider, parseMeshConfig } from "../core/policy/mesh-config.ts";
import { nearestChanges, type TokenReplay } from "../core/policy/nearest/changes.ts";
import { normalizePath } from "../core/policy/normalize.ts";
import { parseResourceJson } from "../core/policy/parse.ts";
import type { MtlsMode } from "../core/policy/resources.ts";
import type { Verdict } from "../core/policy/verdict.ts";
import { type TokenFilter, tokenFilter } from "./token-filter.ts";

export type { HttpFacts, PeerFacts } from "../core/policy/facts.ts";
export type { Verdict } from "../core/policy/verdict.ts";

export interface Enforcer {
  readonly mtls: MtlsMode;
  /** Some policy is a dry run: what it would do is counted. */
  readonly hasDryRun: boolean;
  /** The target as it is decided on and forwarded; null: 400. */
  normalize(target: string): string | null;
  /** Null where no token is ever looked at. */
  readonly tokens: TokenFilter | null;
  readonly providers: readonly ExtensionProvider[];
  provider(name: string): ExtensionProvider | null;
  /** Without what a CUSTOM rule's provider has to say: `custom` names it. */
  http(peer: PeerFacts | Peer, request: HttpFacts): Verdict;
  tcp(peer: PeerFacts): Verdict;
  /** What would have to be otherwise. Expensive; for denials that are reported. `request` null: TCP. */
  changes(
    peer: PeerFacts,
    request: HttpFacts | null,
    verdict: Verdict,
    replay?: TokenReplay | null,
  ): readonly NearestMiss[];
}

/** Compiles the snapshot's resources. Errors: `config-invalid`, where one of them is not understood: nothing is ignored. */
export function compileSnapshot(snapshot: Snapshot): Enforcer {
  const { workload, trustDomain } = snapshot;
  const meshConfig = parseMeshConfig(snapshot.meshConfig);
  const resources = snapshot.policies.map(parseResourceJson);
  const compiled = compile(resources, workload, { trustDomain, meshConfig });
  const { pathNormalization } = meshConfig;
  return {
    mtls: mtlsMode(compiled, workload.port),
    hasDryRun: compiled.policies.some((policy) => policy.dryRun),
    normalize: (target) => normalizePath(target, pathNormalization),
    tokens: tokenFilter(compiled.tokens, snapshot.keySets),
    provider: (name) => meshConfig.extensionProviders.find((each) => each.name === name) ?? null,
    providers: meshConfig.extensionProviders,
    http(peer, request) {
      return decideHttp(compiled, peer, request);
    },
    tcp: (peer) => decideTcp(compiled, peer),
    changes: (peer, request, { reason }, replay = null) =>
      nearestChanges({ compiled, peer, request, reason, replay, isUnread: workload.protocol !== "tcp" }),
  };
}

/** INVARIANT: fail closed: where a CUSTOM rule matches, its provider has to allow; here it was not asked. */
export function withoutProvider(verdict: Verdict): Verdict {
  const { custom } = verdict;
  if (custom === null || verdict.decision === "deny") {
    return verdict;
  }
  return { ...verdict, decision: "deny", status: verdict.status === 0 ? -1 : 403, reason: "custom-denied", ...custom };
}
