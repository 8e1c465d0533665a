/** What the data path asks the policy: one compiled policy for each snapshot. */
import type { NearestMiss } from "../core/api/admin.ts";
import type { Snapshot } from "../core/api/snapshot.ts";
import { compile } from "../core/policy/compile.ts";
import { decideHttp, decideTcp, mtlsMode } from "../core/policy/evaluate.ts";
import type { HttpFacts, PeerFacts } from "../core/policy/facts.ts";
import { parseMeshConfig } from "../core/policy/mesh-config.ts";
import { nearestChanges } from "../core/policy/nearest/changes.ts";
import { normalizePath } from "../core/policy/normalize.ts";
import { parseResourceJson } from "../core/policy/parse.ts";
import type { MtlsMode } from "../core/policy/resources.ts";
import { BAD_TOKEN, type Verdict } from "../core/policy/verdict.ts";

export type { HttpFacts, PeerFacts } from "../core/policy/facts.ts";
export type { Verdict } from "../core/policy/verdict.ts";

export interface Enforcer {
  readonly mtls: MtlsMode;
  /** Some policy is a dry run: what it would do is counted. */
  readonly hasDryRun: boolean;
  /** The target as it is decided on and forwarded; null: 400. */
  normalize(target: string): string | null;
  http(peer: PeerFacts, request: HttpFacts): Verdict;
  tcp(peer: PeerFacts): Verdict;
  /** What would have to be otherwise. Expensive; for denials that are reported. `request` null: TCP. */
  changes(peer: PeerFacts, request: HttpFacts | null, verdict: Verdict): readonly NearestMiss[];
}

/** Compiles the snapshot's resources. Errors: `config-invalid`, where one of them is not understood: nothing is ignored. */
export function compileSnapshot(snapshot: Snapshot): Enforcer {
  const { workload, trustDomain } = snapshot;
  const meshConfig = parseMeshConfig(snapshot.meshConfig);
  const resources = snapshot.policies.map(parseResourceJson);
  const compiled = compile(resources, workload, { trustDomain, meshConfig });
  const { pathNormalization } = meshConfig;
  const judgesTokens = compiled.requestAuthentications.length > 0;
  return {
    mtls: mtlsMode(compiled, workload.port),
    hasDryRun: compiled.policies.some((policy) => policy.dryRun),
    normalize: (target) => normalizePath(target, pathNormalization),
    http(peer, request) {
      if (judgesTokens && carriesToken(request)) {
        return BAD_TOKEN;
      }
      return withoutProvider(decideHttp(compiled, peer, request));
    },
    tcp: (peer) => withoutProvider(decideTcp(compiled, peer)),
    changes: (peer, request, { reason }) =>
      nearestChanges({ compiled, peer, request, reason, isUnread: workload.protocol !== "tcp" }),
  };
}

/** INVARIANT: fail closed: where a CUSTOM rule matches, its provider has to allow, and this sidecar asks none yet. */
function withoutProvider(verdict: Verdict): Verdict {
  const { custom } = verdict;
  if (custom === null || verdict.decision === "deny") {
    return verdict;
  }
  return { ...verdict, decision: "deny", status: verdict.status === 0 ? -1 : 403, reason: "custom-denied", ...custom };
}

/** Fail closed: a token that nobody here validates yet is a bad one; no token is nobody's identity. */
function carriesToken(request: HttpFacts): boolean {
  const lines = request.header("authorization");
  return lines?.some((line) => line.startsWith("Bearer ")) === true || /[?&]access_token=/.test(request.path ?? "");
}
