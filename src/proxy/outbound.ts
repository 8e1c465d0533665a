/** The listeners by which the service reaches others: which upstream is meant, then on to its sidecar. */
import type { Socket } from "node:net";
import type { Upstream } from "../core/api/snapshot.ts";
import { KILLED, KILLED_TCP } from "../core/policy/verdict.ts";
import { principalOf } from "../core/spiffe/id.ts";
import { formatAddress, plainIp } from "../io/net.ts";
import { logConnection, logExchange, type UpstreamLine } from "./access-lines.ts";
import type { Cause, Tracked } from "./connections.ts";
import { countClosed, isHttp, ownParty, type ProxyContext, recordDenial } from "./context.ts";
import type { HttpFacts, PeerFacts, Verdict } from "./enforce.ts";
import { type Answer, BAD_REQUEST, denied, NO_ROUTE, NOT_READY } from "./http/answers.ts";
import { splitTarget } from "./http/target.ts";
import type { HttpBack } from "./http-back.ts";
import { HttpFront, type HttpGate } from "./http-front.ts";
import { SocketPipe } from "./pipe.ts";
import { Pool, TrackedLink } from "./pool.ts";
import { Splice } from "./splice.ts";
import type { Facts } from "./state.ts";
import { type HttpSeries, partyOf, type TcpSeries } from "./telemetry.ts";
import type { Link, LinkFailure, Transport } from "./transport.ts";

export class Outbound {
  readonly context: ProxyContext;
  readonly transport: Transport;
  readonly #pools = new Map<string, Pool>();
  readonly #unwatch: () => void;

  constructor(context: ProxyContext, transport: Transport) {
    this.context = context;
    this.transport = transport;
    this.#unwatch = context.state.facts.watch((facts) => facts !== null && this.#update(facts));
  }

  /** A connection that asks for the upstream `name` (`name` or `namespace/name`). */
  accept(socket: Socket, name: string, captured: boolean): void {
    const connection = new OutboundConnection(this, socket, name, captured);
    this.context.connections.add(connection);
    connection.start();
  }

  pool(upstream: Upstream): Pool {
    const key = `${upstream.namespace}/${upstream.name}`;
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      const { state, connections, time } = this.context;
      pool = new Pool(
        upstream,
        this.transport,
        state,
        connections,
        time.read,
        (to, failure) => this.failed(to, failure),
        (cause) => countClosed(this.context, cause),
      );
      this.#pools.set(key, pool);
    }
    return pool;
  }

  /** Counts and logs an upstream that could not be reached, or was not who it should be. */
  failed(upstream: Upstream, failure: LinkFailure): void {
    const { telemetry, log, seldom } = this.context;
    if (failure.kind !== "connect" && failure.kind !== "own-identity") {
      const series = telemetry.refusals(ownParty(this.context), partyOf(upstream));
      series.connectionError.value++;
      if (failure.kind === "identity") {
        series.sanError.value++;
      } else if (failure.kind === "verify") {
        series.verifyError.value++;
      } else if (failure.kind === "no-certificate") {
        series.noCertificate.value++;
      }
    }
    if (seldom.may(`${upstream.namespace}/${upstream.name}`)) {
      log.warn("an upstream cannot be used", { upstream: upstream.name, kind: failure.kind, message: failure.message });
    }
  }

  #update(facts: Facts): void {
    for (const [key, pool] of this.#pools) {
      const upstream = facts.byName.get(key);
      if (upstream === undefined) {
        pool.close();
        this.#pools.delete(key);
      } else {
        pool.update(upstream);
      }
    }
  }

  tick(): void {
    for (const pool of this.#pools.values()) {
      pool.tick();
    }
  }

  close(): void {
    this.#unwatch();
    for (const pool of this.#pools.values()) {
      pool.close();
    }
  }
}

class OutboundConnection implements Tracked, HttpGate, HttpFacts {
  /** At the other end is our own service, which proves nothing to us. */
  readonly peer = null;
  readonly proof = null;
  readonly append = null;
  readonly scheme = "http";
  readonly auth = null;
  method = "";
  path = "";
  host = "";

  readonly #outbound: Outbound;
  readonly #context: ProxyContext;
  readonly #socket: Socket;
  readonly #name: string;
  readonly #sourceIp: string;
  /** How a client names the listener itself, which is nobody's name in the mesh; empty where the kernel brought it here. */
  readonly #ownHost: string;
  readonly #ownLocalhost: string;
  readonly #startedMs: number;
  #front: HttpFront | null = null;
  #splice: Splice | null = null;
  #link: TrackedLink | null = null;
  #cancelOpen: (() => void) | null = null;
  #upstream: Upstream | null = null;
  #facts: Facts | null = null;
  #http: HttpSeries | null = null;
  #tcp: TcpSeries | null = null;
  #verdict: Verdict | null = null;
  #denialId: string | null = null;
  #cause: Cause | null = null;

  constructor(outbound: Outbound, socket: Socket, name: string, captured: boolean) {
    this.#outbound = outbound;
    this.#context = outbound.context;
    this.#socket = socket;
    this.#name = name;
    this.#startedMs = this.#context.time.nowMs;
    this.#sourceIp = plainIp(socket.remoteAddress);
    const host = plainIp(socket.localAddress);
    this.#ownHost = captured ? "" : formatAddress({ host, port: socket.localPort ?? 0 });
    this.#ownLocalhost = captured ? "" : `localhost:${socket.localPort ?? 0}`;
  }

  start(): void {
    const { time, timeouts } = this.#context;
    const pipe = new SocketPipe(this.#socket);
    this.#socket.once("close", () => this.#gone());
    const facts = this.#route();
    // Without a snapshot nothing says what the upstream speaks: HTTP gets a clear answer, anything else is closed by it.
    if (this.#upstream === null || isHttp(this.#upstream)) {
      this.#front = new HttpFront(pipe, this, time.read, timeouts);
      return;
    }
    this.#startTcp(facts as Facts, this.#upstream, pipe);
  }

  /** Looks the upstream up in the newest snapshot. */
  #route(): Facts | null {
    const facts = this.#context.state.facts.value;
    if (facts !== this.#facts) {
      this.#facts = facts;
      this.#upstream = facts?.byName.get(this.#name) ?? null;
      this.#http = null;
    }
    return facts;
  }

  #series(): HttpSeries {
    const destination = this.#upstream === null ? null : partyOf(this.#upstream);
    this.#http ??= this.#context.telemetry.http("source", ownParty(this.#context), destination, "unknown");
    return this.#http;
  }

  #startTcp(facts: Facts, upstream: Upstream, pipe: SocketPipe): void {
    if (this.#killed(facts, upstream)) {
      this.#recordKilled(facts, upstream, KILLED_TCP, null);
      this.#logConnection("DENY", "identity_killed", 0, 0, false);
      pipe.destroy();
      return;
    }
    pipe.pause();
    const series = this.#context.telemetry.tcp("source", ownParty(this.#context), partyOf(upstream), "unknown");
    this.#tcp = series;
    series.opened.value++;
    this.#cancelOpen = this.#outbound.transport.open(upstream, (link, failure) => {
      this.#cancelOpen = null;
      if (link === null) {
        this.#outbound.failed(upstream, failure as LinkFailure);
        this.#tcpOver((failure as LinkFailure).answer.flags, (failure as LinkFailure).answer.details, 0, 0, false);
        pipe.destroy();
        return;
      }
      this.#join(pipe, link, upstream);
    });
  }

  #join(pipe: SocketPipe, link: Link, upstream: Upstream): void {
    const { state, connections } = this.#context;
    const tracked = new TrackedLink(link, upstream, state, (cause) => {
      this.#cause = cause;
      countClosed(this.#context, cause);
    });
    this.#link = tracked;
    connections.add(tracked);
    const splice = new Splice(pipe, link.pipe, this.#context.time.read, (end) => {
      connections.delete(tracked);
      const flags = end.error === null ? "-" : end.side === "downstream" ? "DC" : "UC";
      this.#tcpOver(flags, this.#cause ?? "via_upstream", splice.received, splice.sent, true);
    });
    this.#splice = splice;
    const cause = tracked.recheck();
    if (cause !== null) {
      tracked.close(cause);
    }
  }

  #tcpOver(flags: string, details: string, received: number, sent: number, proven: boolean): void {
    const series = this.#tcp;
    if (series !== null) {
      this.#tcp = null;
      series.closed.value++;
      series.sent.value += sent;
      series.received.value += received;
      this.#logConnection(flags, details, received, sent, proven);
    }
  }

  #killed(facts: Facts, upstream: Upstream): boolean {
    return facts.killed.has(upstream.spiffeId) || facts.killed.has(facts.snapshot.workload.spiffeId);
  }

  #recordKilled(facts: Facts, upstream: Upstream, verdict: Verdict, request: HttpFacts | null): string {
    const own = facts.snapshot.workload.spiffeId;
    const connection: PeerFacts = {
      principal: principalOf(own),
      sourceIp: this.#sourceIp,
      remoteIp: this.#sourceIp,
      destinationIp: "",
      destinationPort: upstream.port,
      sni: null,
    };
    this.#verdict = verdict;
    this.#denialId = recordDenial(this.#context, facts, verdict, own, connection, request);
    return this.#denialId;
  }

  // HttpGate

  /** Nothing is ever waited for on this side. */
  collected(_front: HttpFront): void {}

  /** HOT. Whether the request may be made is the destination's to decide; here only what no destination would hear. */
  admit(front: HttpFront): Answer | null {
    const facts = this.#route();
    const { head } = front.exchange;
    const path = splitTarget(head);
    if (path === null) {
      head.close = true;
      return BAD_REQUEST;
    }
    front.exchange.path = path;
    if (facts === null) {
      return NOT_READY;
    }
    if (this.#upstream === null || !isHttp(this.#upstream)) {
      head.close = true;
      return NO_ROUTE;
    }
    if (head.host === this.#ownHost || head.host === this.#ownLocalhost) {
      // The service dialled its sidecar's listener by address: the name it stands for is what the other side is asked by.
      head.replaceHost(this.#upstream.name);
    }
    if (facts.killed.size > 0 && this.#killed(facts, this.#upstream)) {
      this.method = head.method;
      this.path = path;
      this.host = head.host;
      return denied(this.#recordKilled(facts, this.#upstream, KILLED, this), "identity_killed");
    }
    return null;
  }

  header(name: string): readonly string[] | null {
    return this.#front?.exchange.header(name) ?? null;
  }

  take(_front: HttpFront): HttpBack | null {
    return this.#outbound.pool(this.#upstream as Upstream).take();
  }

  open(front: HttpFront): void {
    this.#outbound.pool(this.#upstream as Upstream).open(front);
  }

  cancel(front: HttpFront): void {
    if (this.#upstream !== null) {
      this.#outbound.pool(this.#upstream).cancel(front);
    }
  }

  release(back: HttpBack): void {
    back.home.release(back);
  }

  finished(front: HttpFront): void {
    const durationMs = performance.now() - front.exchange.startedAt;
    this.#series().record(
      front.exchange.status,
      front.exchange.flags,
      durationMs,
      front.exchange.received,
      front.exchange.sent,
    );
    logExchange(this.#context, front, {
      durationMs,
      direction: "outbound",
      sourcePrincipal: this.#context.state.svid.value?.id ?? null,
      sourceIp: this.#sourceIp,
      destination: this.#line(front.exchange.answer === null && front.exchange.status !== 0),
      verdict: this.#verdict,
      denialId: this.#denialId,
      cause: this.#cause,
    });
    this.#verdict = null;
    this.#denialId = null;
  }

  closed(_front: HttpFront): void {}

  #line(proven: boolean): UpstreamLine {
    const upstream = this.#upstream;
    return {
      name: upstream === null ? this.#name : `${upstream.name}.${upstream.namespace}`,
      endpoint: upstream?.endpoints[0] ?? null,
      principal: proven ? (upstream?.spiffeId ?? null) : null,
    };
  }

  // Tracked

  recheck(): Cause | null {
    const facts = this.#context.state.facts.value;
    return facts?.killed.has(facts.snapshot.workload.spiffeId) === true ? "identity-killed" : null;
  }

  close(cause: Cause): void {
    this.#cause = cause;
    countClosed(this.#context, cause);
    this.#cancelOpen?.();
    this.#front?.destroy();
    this.#splice?.close();
    this.#socket.destroy();
  }

  tick(nowMs: number): void {
    this.#front?.tick(nowMs);
    this.#splice?.tick(nowMs, this.#context.timeouts.idleMs);
  }

  drain(): void {
    this.#front?.drain();
  }

  #gone(): void {
    this.#cancelOpen?.();
    this.#context.connections.delete(this);
    if (this.#splice === null) {
      this.#tcpOver("DC", this.#cause ?? "closed_before_connected", 0, 0, false);
    }
  }

  #logConnection(flags: string, details: string, received: number, sent: number, proven: boolean): void {
    logConnection(this.#context, {
      direction: "outbound",
      startedMs: this.#startedMs,
      sourcePrincipal: this.#context.state.svid.value?.id ?? null,
      sourceIp: this.#sourceIp,
      destination: { ...this.#line(proven), principal: proven ? (this.#link?.peer ?? null) : null },
      flags,
      details,
      received,
      sent,
      verdict: this.#verdict,
      denialId: this.#denialId,
      cause: this.#cause,
    });
  }
}
