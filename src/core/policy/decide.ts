/**
 * The whole decision about a request as people write it down (`everyhop policy decide`, PolicyTest): mutual TLS, the
 * request itself, its token, then the policies, in the order a sidecar goes through them.
 */
import { type CompiledPolicy, compile, type MeshScope } from "./compile.ts";
import type { DecisionRequest } from "./decision-request.ts";
import { decideHttp, decideTcp, mtlsMode } from "./evaluate.ts";
import { type Explanation, explain } from "./explain.ts";
import type { HttpFacts, PeerFacts } from "./facts.ts";
import { receivedRequest } from "./received.ts";
import type { Resource } from "./resources.ts";
import { BAD_REQUEST, PLAINTEXT_REFUSED, type Verdict } from "./verdict.ts";

export interface Answer
  extends Pick<Verdict, "decision" | "status" | "reason" | "policy" | "rule" | "audit" | "dryRun">,
    Partial<Explanation> {
  readonly id: string | number | null;
  /** The normalised path; not there on TCP and where the answer is 400. */
  readonly path?: string;
  readonly mtls: "strict" | "permissive" | "disable";
}

/** One request with what the evaluator needs, or the verdict that came before any policy. */
export interface Prepared {
  readonly compiled: CompiledPolicy;
  readonly peer: PeerFacts;
  /** Null on TCP. */
  readonly http: HttpFacts | null;
  readonly refused: Verdict | null;
}

/** Decides requests against one set of resources; compiles what selects a workload once. */
export class Decider {
  readonly #resources: readonly Resource[];
  readonly #mesh: MeshScope;
  readonly #compiled = new Map<string, CompiledPolicy>();

  constructor(resources: readonly Resource[], mesh: MeshScope) {
    this.#resources = resources;
    this.#mesh = mesh;
  }

  compiledFor({ destination: { namespace, labels } }: DecisionRequest): CompiledPolicy {
    const key = JSON.stringify([namespace, Object.entries(labels).sort()]);
    let compiled = this.#compiled.get(key);
    if (compiled === undefined) {
      compiled = compile(this.#resources, { namespace, labels }, this.#mesh);
      this.#compiled.set(key, compiled);
    }
    return compiled;
  }

  prepare(request: DecisionRequest): Prepared {
    const compiled = this.compiledFor(request);
    const peer = peerFacts(request);
    const isRefused = mtlsMode(compiled, peer.destinationPort) === "STRICT" && peer.principal === null;
    if (request.request === null) {
      return { compiled, peer, http: null, refused: isRefused ? PLAINTEXT_REFUSED : null };
    }
    const http = receivedRequest(request.request, request, this.#mesh.meshConfig.pathNormalization);
    return { compiled, peer, http, refused: isRefused ? PLAINTEXT_REFUSED : http === null ? BAD_REQUEST : null };
  }

  decide(request: DecisionRequest, options: { readonly explain?: boolean } = {}): Answer {
    const prepared = this.prepare(request);
    const { compiled, peer, http } = prepared;
    const verdict = verdictOf(prepared);
    const { decision, status, reason, policy, rule, audit, dryRun } = verdict;
    const mtls = mtlsMode(compiled, peer.destinationPort).toLowerCase() as Answer["mtls"];
    const path = http?.path ?? null;
    return {
      id: request.id,
      decision,
      status,
      reason,
      policy,
      rule,
      ...(path === null ? {} : { path }),
      audit,
      dryRun,
      mtls,
      ...(options.explain ? explain(compiled, peer, http, verdict) : {}),
    };
  }
}

/** Nobody can be asked here: what a CUSTOM rule would ask about is denied. */
export function verdictOf({ compiled, peer, http, refused }: Prepared): Verdict {
  const verdict = refused ?? (http === null ? decideTcp(compiled, peer) : decideHttp(compiled, peer, http));
  if (verdict.custom === null) {
    return verdict;
  }
  const { policy, rule } = verdict.custom;
  return { ...verdict, decision: "deny", status: http === null ? -1 : 403, reason: "custom-denied", policy, rule };
}

function peerFacts({ source, destination, request }: DecisionRequest): PeerFacts {
  const isPlaintextHttp = source.principal === null && request !== null;
  return {
    principal: source.principal,
    sourceIp: source.ip ?? "",
    remoteIp: source.remoteIp ?? source.ip ?? "",
    destinationIp: destination.ip ?? "",
    destinationPort: destination.port ?? -1,
    // Plaintext HTTP has no TLS handshake; on TCP, TLS of the application itself passes through with its SNI.
    sni: isPlaintextHttp ? null : destination.sni,
  };
}
