/**
 * The whole decision about a request as people write it down (`everyhop policy decide`, PolicyTest): mutual TLS, the
 * request itself, its token, then the policies, in the order a sidecar goes through them.
 */

import { authenticate, type KeySource } from "./authenticate.ts";
import { type CompiledPolicy, compile, type MeshScope } from "./compile.ts";
import type { DecisionRequest } from "./decision-request.ts";
import { decideHttp, decideTcp, mtlsMode } from "./evaluate.ts";
import { type Explanation, explain } from "./explain.ts";
import { type HttpFacts, type Peer, type PeerFacts, peerOf } from "./facts.ts";
import type { TokenReplay } from "./nearest/changes.ts";
import { claimsOf, httpFacts, type ReceivedRequest, receivedRequest } from "./received.ts";
import type { MtlsMode, Resource } from "./resources.ts";
import type { TokenFault } from "./token-check.ts";
import { BAD_REQUEST, BAD_TOKEN, PLAINTEXT_REFUSED, type Verdict, WRONG_AUDIENCE } from "./verdict.ts";

export interface Answer
  extends Pick<Verdict, "decision" | "status" | "reason" | "policy" | "rule" | "audit" | "dryRun">,
    Partial<Explanation> {
  readonly id: string | number | null;
  /** The normalised path; not there on TCP and where the answer is 400. */
  readonly path?: string;
  readonly mtls: "strict" | "permissive" | "disable";
  /** What is wrong with the token, where that is why. */
  readonly tokenFault?: TokenFault;
}

/** One request with what the evaluator needs, or the verdict that came before any policy. */
export interface Prepared {
  readonly compiled: CompiledPolicy;
  readonly peer: PeerFacts;
  /** The same, as the evaluator wants it. */
  readonly known: Peer;
  /** Null on TCP. */
  readonly http: HttpFacts | null;
  readonly refused: Verdict | null;
  /** What is wrong with the token, where that is why. */
  readonly fault: TokenFault | null;
}

export interface DeciderOptions {
  /** Milliseconds since the epoch: when tokens are looked at. */
  readonly now: () => number;
  readonly keysOf?: KeySource;
}

/** Decides requests against one set of resources; compiles what selects a workload once. */
export class Decider {
  readonly #resources: readonly Resource[];
  readonly #mesh: MeshScope;
  readonly #compiled = new Map<string, CompiledPolicy>();

  readonly #now: () => number;
  readonly #keysOf: KeySource;

  constructor(resources: readonly Resource[], mesh: MeshScope, options: DeciderOptions) {
    this.#resources = resources;
    this.#mesh = mesh;
    this.#now = options.now;
    this.#keysOf = options.keysOf ?? (() => null);
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
    const isRefused = isTransportRefused(mtlsMode(compiled, peer.destinationPort), request);
    const part = request.request;
    const received = part === null ? null : receivedRequest(part, request, this.#mesh);
    const base = { compiled, peer, known: peerOf(peer), fault: null };
    if (isRefused || part === null || received === null) {
      const http = received === null ? null : httpFacts(received, null);
      return { ...base, http, refused: isRefused ? PLAINTEXT_REFUSED : part === null ? null : BAD_REQUEST };
    }
    if (part.auth !== null) {
      return { ...base, http: httpFacts(received, claimsOf(part.auth, compiled.tokens)), refused: null };
    }
    const result = authenticate(compiled.tokens, received, this.#now(), this.#keysOf);
    return result.ok
      ? { ...base, http: httpFacts(received, result.claims), refused: null }
      : {
          ...base,
          http: httpFacts(received, null),
          refused: result.status === 403 ? WRONG_AUDIENCE : BAD_TOKEN,
          fault: result.fault,
        };
  }

  /** How the request's tokens can be looked at again; null where it carries validated claims, or is no request. */
  #replayOf(request: DecisionRequest): TokenReplay | null {
    const part = request.request;
    if (part === null || part.auth !== null || receivedRequest(part, request, this.#mesh) === null) {
      return null;
    }
    const received = (): ReceivedRequest => receivedRequest(part, request, this.#mesh) as ReceivedRequest;
    return { received, nowMs: this.#now(), keysOf: this.#keysOf };
  }

  decide(request: DecisionRequest, options: { readonly explain?: boolean } = {}): Answer {
    const prepared = this.prepare(request);
    const { compiled, peer, http, fault } = prepared;
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
      ...(fault === null ? {} : { tokenFault: fault }),
      ...(options.explain ? explain(compiled, peer, http, verdict, this.#replayOf(request)) : {}),
    };
  }
}

/** STRICT takes mutual TLS alone; DISABLE terminates no TLS and takes none. */
function isTransportRefused(mode: MtlsMode, { source, destination, request }: DecisionRequest): boolean {
  const isMutual = source.principal !== null;
  const isTls = isMutual || (request === null && destination.sni !== null);
  return (mode === "STRICT" && !isMutual) || (mode === "DISABLE" && isTls);
}

/** Nobody can be asked here: what a CUSTOM rule would ask about is denied. */
export function verdictOf({ compiled, known, http, refused }: Prepared): Verdict {
  const verdict = refused ?? (http === null ? decideTcp(compiled, known) : decideHttp(compiled, known, http));
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
