/** One sidecar's data path: its listeners, its facts, and what happens when those change. No configuration, no control plane. */
import type { Socket } from "node:net";
import type { Kill } from "../core/api/snapshot.ts";
import type { Clock } from "../core/base/clock.ts";
import { trustDomainOf } from "../core/spiffe/id.ts";
import type { X509Bundles } from "../core/spiffe/svid.ts";
import type { Log } from "../io/log.ts";
import { type Address, listenTcp, type TcpListener } from "../io/net.ts";
import { originalDestination } from "../io/net-original-destination.ts";
import type { AccessLog } from "./access-log.ts";
import { Authorizers, serviceNames } from "./authorize/authorizers.ts";
import { capturedUpstream, isOwnListener } from "./capture.ts";
import { Connections } from "./connections.ts";
import { countClosed, isHttp, ownParty, type ProxyContext, Seldom, type Timeouts } from "./context.ts";
import { Denials } from "./denials.ts";
import { DryRuns } from "./dry-runs.ts";
import { Inbound } from "./inbound.ts";
import { KeyRequests } from "./key-requests.ts";
import { Outbound } from "./outbound.ts";
import { bundlesAfterRemoval, stillBelieved } from "./peer.ts";
import { CoarseTime, type Facts, State } from "./state.ts";
import { partyOf, Telemetry } from "./telemetry.ts";
import { TlsTransport } from "./transport.ts";

export interface SidecarOptions {
  readonly service: { readonly name: string; readonly namespace: string };
  readonly app: Address;
  readonly inbound: Address;
  readonly outbound: Readonly<Record<string, Address>>;
  readonly capture: { readonly inbound?: Address; readonly outbound?: Address };
  readonly accessLog: (telemetry: Telemetry) => AccessLog | null;
  readonly log: Log;
  readonly clock: Clock;
  readonly timeouts: Timeouts;
}

/** An order of the kill switch, carried out here. */
export interface KillReceipt {
  readonly order: string;
  readonly connectionsClosed: number;
}

const TICK_MS = 1_000;

export class Sidecar {
  readonly state: State = new State();
  readonly telemetry: Telemetry = new Telemetry();
  readonly connections: Connections = new Connections();
  readonly denials: Denials;
  readonly dryRuns: DryRuns;
  readonly keys: KeyRequests;
  readonly #authorizers: Authorizers;
  readonly context: ProxyContext;
  /** Called for each order of the kill switch that was not in the snapshot before. */
  onReceipt: (receipt: KillReceipt) => void = () => {};
  readonly #options: SidecarOptions;
  readonly #inbound: Inbound;
  readonly #outbound: Outbound;
  readonly #accessLog: AccessLog | null;
  readonly #listeners = new Map<string, TcpListener>();
  #cancelTick: () => void = () => {};
  #orders = new Set<string>();
  #policies = "";
  #bundlesInForce: ReadonlyMap<string, Uint8Array> = new Map();
  #hadIdentity = false;
  #bundles: X509Bundles = new Map();

  constructor(options: SidecarOptions) {
    this.#options = options;
    const { service, app, log, clock, timeouts } = options;
    this.denials = new Denials(this.telemetry.families.dropped.with("denial"));
    this.dryRuns = new DryRuns(this.telemetry);
    this.keys = new KeyRequests(clock);
    this.#authorizers = new Authorizers(
      (name, port) => this.#locate(name, port),
      (path) => this.state.facts.value?.snapshot.bundles.get(path) ?? null,
      log,
    );
    this.#accessLog = options.accessLog(this.telemetry);
    const time = new CoarseTime(clock.now());
    this.context = {
      service,
      app,
      state: this.state,
      connections: this.connections,
      telemetry: this.telemetry,
      denials: this.denials,
      dryRuns: this.dryRuns,
      keys: this.keys,
      authorizers: this.#authorizers,
      accessLog: this.#accessLog,
      log,
      clock,
      time,
      seldom: new Seldom(time),
      timeouts,
    };
    this.#inbound = new Inbound(this.context);
    this.#outbound = new Outbound(this.context, new TlsTransport(this.state, clock));
    this.state.facts.watch((facts) => facts !== null && this.#factsChanged(facts));
    this.state.svid.watch((svid) => this.#identityChanged(svid !== null));
    this.state.bundles.watch((bundles) => this.#bundlesChanged(bundles));
    this.#initialiseSeries(null);
  }

  /** Listens everywhere; an address that is taken is an error, and nothing listens then. */
  async listen(): Promise<void> {
    const { inbound, outbound, capture } = this.#options;
    try {
      await this.#listen("inbound", inbound, (socket) => this.#inbound.accept(socket));
      for (const [name, address] of Object.entries(outbound)) {
        await this.#listen(`outbound/${name}`, address, (socket) => this.#outbound.accept(socket, name, false));
      }
      if (capture.inbound !== undefined) {
        await this.#listen("capture/inbound", capture.inbound, (socket) => this.#capturedInbound(socket));
      }
      if (capture.outbound !== undefined) {
        await this.#listen("capture/outbound", capture.outbound, (socket) => this.#captured(socket));
      }
    } catch (error) {
      this.stopListening();
      throw error;
    }
    this.#tick();
  }

  async #listen(name: string, address: Address, accept: (socket: Socket) => void): Promise<void> {
    this.#listeners.set(name, await listenTcp(address, accept));
  }

  /** Where a listener is bound: `inbound`, `outbound/NAME`, `capture/inbound`, `capture/outbound`. */
  address(listener: string): Address | null {
    return this.#listeners.get(listener)?.address ?? null;
  }

  /** The service has one port in the mesh: what the kernel brings here from another one was not meant for it. */
  #capturedInbound(socket: Socket): void {
    const destination = originalDestination(socket);
    const port = this.state.facts.value?.snapshot.workload.port;
    const ours = [port, this.address("inbound")?.port, this.address("capture/inbound")?.port];
    if (destination !== null && !ours.includes(destination.port)) {
      countClosed(this.context, "outside-the-mesh");
      socket.destroy();
      return;
    }
    this.#inbound.accept(socket);
  }

  #captured(socket: Socket): void {
    const { log, seldom } = this.context;
    const destination = originalDestination(socket);
    const own = [...this.#listeners.values()].map(({ address }) => address);
    const facts = this.state.facts.value;
    if (destination === null || facts === null || isOwnListener(destination, own)) {
      if (seldom.may("captured")) {
        log.warn("a captured connection without a destination is refused", { destination });
      }
      socket.destroy();
      return;
    }
    const upstream = capturedUpstream(destination, facts.snapshot.upstreams);
    if (upstream === null) {
      if (seldom.may("outside")) {
        log.warn("a connection to an address outside the mesh is refused", { destination });
      }
      countClosed(this.context, "outside-the-mesh");
      socket.destroy();
      return;
    }
    this.#outbound.accept(socket, `${upstream.namespace}/${upstream.name}`, true);
  }

  #tick(): void {
    const { clock, time } = this.context;
    this.#cancelTick = clock.after(TICK_MS, () => {
      time.nowMs = clock.now();
      this.connections.tick(time.nowMs);
      this.#outbound.tick();
      this.#tick();
    });
  }

  /** A service of the mesh is reached through our own listener for it, and so by mutual TLS; any other by its name. */
  #locate(service: string, port: number): Address {
    const known = serviceNames(service).map((name) => this.state.facts.value?.byName.get(name));
    const upstream = known.find((each) => each !== undefined);
    const own =
      upstream === undefined
        ? null
        : (this.address(`outbound/${upstream.name}`) ??
          this.address(`outbound/${upstream.namespace}/${upstream.name}`));
    return own ?? { host: service.slice(service.indexOf("/") + 1), port };
  }

  /** INVARIANT: the facts changed in one assignment; every connection is asked again at once. */
  #factsChanged(facts: Facts): void {
    const policies = JSON.stringify(facts.snapshot.policies);
    if (policies !== this.#policies) {
      this.#policies = policies;
      this.dryRuns.reset();
    }
    this.#authorizers.keepOnly(facts.enforcer.providers);
    if (!sameBundles(facts.snapshot.bundles, this.#bundlesInForce)) {
      this.#bundlesInForce = facts.snapshot.bundles;
      this.#authorizers.bundlesChanged(facts.enforcer.providers);
    }
    const { kills, workload } = facts.snapshot;
    const orders = new Set(kills.map(({ order }) => order));
    for (const kill of kills) {
      if (!this.#orders.has(kill.order)) {
        this.onReceipt({ order: kill.order, connectionsClosed: this.#kill(kill, kill.spiffeId === workload.spiffeId) });
      }
    }
    this.#orders = orders;
    const closed = this.connections.recheck();
    if (closed.size > 0) {
      this.context.log.info("connections closed by a change", Object.fromEntries(closed));
    }
    this.#initialiseSeries(facts);
    this.keys.changed();
  }

  #kill(kill: Kill, own: boolean): number {
    const closed = this.connections.close((connection) => own || connection.peer === kill.spiffeId, "identity-killed");
    this.context.log.warn("identity cut off", {
      spiffeId: kill.spiffeId,
      order: kill.order,
      connectionsClosed: closed,
    });
    return closed;
  }

  /** INVARIANT: the identity ends with the process it was given for; whoever listens in its place gets nothing. */
  #identityChanged(there: boolean): void {
    if (this.#hadIdentity && !there) {
      const closed = this.connections.close(() => true, "identity-gone");
      this.context.log.warn("the service's identity is gone", { connectionsClosed: closed });
    }
    this.#hadIdentity = there;
  }

  #bundlesChanged(bundles: X509Bundles): void {
    const judged = bundlesAfterRemoval(this.#bundles, bundles, this.context.clock.now());
    this.#bundles = bundles;
    if (judged !== null) {
      this.connections.close(
        ({ peer, proof }) =>
          peer !== null && proof !== null && judged.has(trustDomainOf(peer)) && !stillBelieved(proof, judged),
        "trust-removed",
      );
    }
  }

  /** A counter born at 3 and flat has no rate: the series that alerts look at exist at 0 before anything happens. */
  #initialiseSeries(facts: Facts | null): void {
    const own = ownParty(this.context);
    this.telemetry.refusals(null, own);
    this.telemetry.tcpDenied(null, own);
    if (facts === null) {
      return;
    }
    const http = isHttp(facts.snapshot.workload);
    for (const upstream of facts.snapshot.upstreams) {
      const party = partyOf(upstream);
      if (http) {
        this.telemetry.http("destination", party, own, "mutual_tls").expect(403, "DENY");
      } else {
        this.telemetry.tcpDenied(party, own);
        this.telemetry.tcp("destination", party, own, "mutual_tls");
      }
      this.telemetry.refusals(own, party);
      if (isHttp(upstream)) {
        this.telemetry.http("source", own, party, "unknown").expect(403, "-");
      }
    }
  }

  stopListening(): void {
    for (const listener of this.#listeners.values()) {
      listener.close();
    }
  }

  /** Accepts nothing new, lets what is under way end for up to `graceMs`, then closes the rest. */
  async close(graceMs: number): Promise<void> {
    this.stopListening();
    this.connections.drain();
    const deadline = performance.now() + graceMs;
    this.#outbound.close();
    this.#authorizers.close();
    while (this.connections.size > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.connections.close(() => true, "draining");
    this.#cancelTick();
    await this.#accessLog?.close();
  }
}

function sameBundles(a: ReadonlyMap<string, Uint8Array>, b: ReadonlyMap<string, Uint8Array>): boolean {
  return (
    a.size === b.size && [...a].every(([path, bytes]) => Buffer.compare(bytes, b.get(path) ?? new Uint8Array()) === 0)
  );
}
