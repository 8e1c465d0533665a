/** What every part of one sidecar shares. */
import type { WorkloadDescription } from "../core/api/snapshot.ts";
import type { Clock } from "../core/base/clock.ts";
import type { TokenReplay } from "../core/policy/nearest/changes.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import type { Log } from "../io/log.ts";
import type { Address } from "../io/net.ts";
import type { AccessLog } from "./access-log.ts";
import type { Authorizers } from "./authorize/authorizers.ts";
import type { Cause, Connections } from "./connections.ts";
import type { Denials } from "./denials.ts";
import type { DryRuns } from "./dry-runs.ts";
import type { HttpFacts, PeerFacts, Verdict } from "./enforce.ts";
import type { KeyRequests } from "./key-requests.ts";
import type { CoarseTime, Facts, State } from "./state.ts";
import { type Party, partyOf, strangerOf, type Telemetry } from "./telemetry.ts";

export interface Timeouts {
  /** From the first byte of a head to its last; also the TLS handshake, and the first byte of a connection. */
  readonly headMs: number;
  /** Without a byte in either direction, HTTP. */
  readonly idleMs: number;
  /** A connection to the application. */
  readonly connectMs: number;
}

export const TIMEOUTS: Timeouts = { headMs: 10_000, idleMs: 300_000, connectMs: 5_000 };

export interface ProxyContext {
  readonly service: { readonly name: string; readonly namespace: string };
  /** Where the application listens. */
  readonly app: Address;
  readonly state: State;
  readonly connections: Connections;
  readonly telemetry: Telemetry;
  readonly denials: Denials;
  readonly dryRuns: DryRuns;
  readonly keys: KeyRequests;
  readonly authorizers: Authorizers;
  readonly accessLog: AccessLog | null;
  readonly log: Log;
  readonly seldom: Seldom;
  readonly clock: Clock;
  readonly time: CoarseTime;
  readonly timeouts: Timeouts;
}

/** What may be said again and again under load is said once in ten seconds; the access log and the metrics have all of it. */
export class Seldom {
  readonly #time: CoarseTime;
  readonly #last = new Map<string, number>();

  constructor(time: CoarseTime) {
    this.#time = time;
  }

  /** `key`: one of few. */
  may(key: string): boolean {
    const now = this.#time.nowMs;
    const last = this.#last.get(key);
    if (last !== undefined && now - last < SELDOM_MS) {
      return false;
    }
    this.#last.set(key, now);
    return true;
  }
}

const SELDOM_MS = 10_000;

/** The workload of this sidecar as metrics name it, also before a snapshot came. */
export function ownParty(context: ProxyContext): Party {
  const facts = context.state.facts.value;
  const { name, namespace } = context.service;
  return facts === null ? { name, namespace, principal: "unknown", labels: {} } : partyOf(facts.snapshot.workload);
}

export function peerParty(facts: Facts, peer: SpiffeId | null): Party | null {
  const upstream = peer === null ? undefined : facts.byIdentity.get(peer);
  return upstream === undefined ? strangerOf(peer) : partyOf(upstream);
}

/** Counts and keeps a denial; returns its id. */
export function recordDenial(
  context: ProxyContext,
  facts: Facts,
  verdict: Verdict,
  peer: SpiffeId | null,
  connection: PeerFacts,
  request: HttpFacts | null,
  replay: (() => TokenReplay) | null = null,
): string {
  const { denials, telemetry, clock } = context;
  const now = clock.now();
  const id = denials.newId();
  const destination = partyOf(facts.snapshot.workload);
  const source = peerParty(facts, peer);
  const protocol = request === null ? "tcp" : "http";
  telemetry.denial(source, destination, protocol, verdict.reason, verdict.policy).value++;
  if (request === null && verdict.reason !== "plaintext-refused") {
    telemetry.tcpDenied(source, destination).value++;
  }
  const explained = verdict.reason !== "killed" && denials.mayExplain(now);
  denials.add({
    id,
    timeMs: now,
    source: peer,
    sourceIp: connection.sourceIp,
    port: connection.destinationPort,
    request:
      request === null
        ? null
        : { method: request.method ?? "", path: cut(request.path ?? ""), host: cut(request.host ?? "") },
    verdict,
    changes: explained ? facts.enforcer.changes(connection, request, verdict, replay?.() ?? null) : [],
    snapshotVersion: facts.snapshot.version,
  });
  return id;
}

const MAX_RECORDED = 2_048;
const cut = (text: string): string => (text.length <= MAX_RECORDED ? text : text.slice(0, MAX_RECORDED));

/** HOT: counts what dry-run policies would have made of a decision, where there are any. */
export function countDryRun(
  context: ProxyContext,
  facts: Facts,
  verdict: Verdict,
  peer: SpiffeId | null,
  protocol: "http" | "tcp",
): void {
  if (facts.enforcer.hasDryRun) {
    context.dryRuns.add(verdict, peerParty(facts, peer), partyOf(facts.snapshot.workload), protocol);
  }
}

/** Counts a connection that the proxy closed. */
export function countClosed(context: ProxyContext, cause: Cause): void {
  context.telemetry.families.closed.with(cause).value++;
}

export function isHttp(workload: Pick<WorkloadDescription, "protocol">): boolean {
  return workload.protocol === "http";
}
