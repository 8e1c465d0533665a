import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Registry as Metrics } from "prom-client";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import type { Role } from "../../core/entries/role.ts";
import type { Bundle } from "../../core/spiffe/bundle.ts";
import { hasLostAuthority } from "../../core/spiffe/distrust.ts";
import { type SpiffeId, type TrustDomain, trustDomainOf } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { type RefusedX509Svid, type VerifiedX509Svid, verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import { Node } from "../../gen/everyhop/node/node_pb.js";
import { Health } from "../../gen/grpc/health/health_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle as BundleApi } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { LocalAuthority } from "../../gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { TrustDomain as TrustDomainApi } from "../../gen/spire/api/server/trustdomain/v1/trustdomain_pb.js";
import type { HttpListener } from "../../io/http.ts";
import type { Log } from "../../io/log.ts";
import { peerCredentials } from "../../io/peer.ts";
import { listenTls, listenUnix, type RpcListener, type Service } from "../../io/rpc/listen.ts";
import type { Store } from "../../io/store/store.ts";
import { peerChain } from "../../io/tls.ts";
import type { NodeVerifier } from "../attest/node/proof.ts";
import type { Authority } from "../authority/authority.ts";
import { adminService, healthService } from "./admin-service.ts";
import { agentService } from "./agent-service.ts";
import type { SeenCertificate } from "./audit.ts";
import { BundleProgress } from "./bundle-progress.ts";
import { bundleService } from "./bundle-service.ts";
import type { Bundles } from "./bundles.ts";
import { type Caller, Callers } from "./callers.ts";
import type { ChangeLog } from "./change-log.ts";
import { entryService } from "./entry-service.ts";
import { Federation, type FederationConfig } from "./federation/federation.ts";
import { type GuardedHandlers, type GuardOptions, guard } from "./guard.ts";
import { Issuer } from "./issuer.ts";
import { localAuthorityService } from "./local-authority-service.ts";
import type { Limit } from "./methods.ts";
import { type IdentityMetrics, identityMetrics, registerIdentityGauges } from "./metrics.ts";
import { NodeWatch } from "./node-watch.ts";
import { type AgentPruning, Nodes } from "./nodes.ts";
import { RateLimiter } from "./rate-limit.ts";
import type { Registry } from "./registry.ts";
import { keepServerSvid, type ServerSvid } from "./server-svid.ts";
import { svidService } from "./svid-service.ts";
import { trustDomainService } from "./trust-domain-service.ts";

export interface IdentityServerOptions {
  readonly trustDomain: TrustDomain;
  readonly store: Store;
  readonly registry: Registry;
  /** Whether the store can be reached now; default: always. */
  readonly databaseUp?: () => boolean;
  /** Has been told of the authority's bundle. */
  readonly bundles: Bundles;
  readonly authority: Authority;
  /** Life of an agent's own SVID. Default: as any other's. */
  readonly agentTtlMs?: number;
  /** Default: no endpoint, and nobody whose bundle is followed. */
  readonly federation?: FederationConfig | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** The record of what administrators change. */
  readonly changes: ChangeLog;
  /** Administrators with limits; default: none. */
  readonly roles?: readonly Role[];
  /** Administrators by configuration, of our own trust domain or one we federate with. */
  readonly adminIds?: readonly SpiffeId[];
  /** Allowances that are not enforced where false. */
  readonly rateLimit?: { readonly attestation: boolean; readonly signing: boolean };
  /** Agents to forget once they expired; default: none. */
  readonly pruneAgents?: AgentPruning | null;
  /** By what nodes may prove themselves, beside join tokens; given our own authorities, which one of them may need. */
  readonly nodeVerifiers?: (authorities: Cell<readonly Uint8Array[]>) => readonly NodeVerifier[];
}

export interface ListenOptions {
  /** Where agents come; port 0 takes a free one. */
  readonly listen: readonly { readonly host: string; readonly port: number }[];
  readonly adminSocket: string;
  /** The control plane's part of the admin service. */
  readonly admin: GuardedHandlers<typeof Admin>;
  /** Certificates that others saw in use: an audit compares them with the journal. */
  readonly seen: () => Promise<readonly SeenCertificate[]>;
}

export interface Listening {
  /** In the order asked for. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** Of the bundle endpoint; null where there is none. */
  readonly bundleEndpoint: { readonly host: string; readonly port: number } | null;
  close(): Promise<void>;
}

/** Per peer and second. As SPIRE, but that a handful of agents behind one address may attest at once. */
const LIMITS: Readonly<Record<Limit, { readonly perSecond: number; readonly burst: number }>> = {
  attest: { perSecond: 1, burst: 20 },
  x509: { perSecond: 500, burst: 500 },
  jwt: { perSecond: 500, burst: 500 },
  status: { perSecond: 10, burst: 10 },
  admin: { perSecond: 100, burst: 500 },
};

const UNLIMITED = { perSecond: 1_000_000_000, burst: 1_000_000_000 };

/** Between the end of the streams of who was thrown out, and that of its connections. */
const GOODBYE_MS = 1_000;
/** Between the removal of an authority and the end of the connections it vouched for: agents renew over them meanwhile. */
const REVOKED_MS = 10_000;
/** An agent has a watch, a sync and a few calls open at once. */
const STREAM_LIMITS = { "grpc.max_concurrent_streams": 100 };
const EMPTY = new Uint8Array();
/** How often what expired is taken out. */
const PRUNE_MS = 60_000;
/** What was appended to our bundle stays so long after it expired: a server below may look for it. */
const DAY_MS = 86_400_000;
/** How long an authority that expired stays in the bundle, where others added it. As SPIRE. */

/** For the log alone: the rights of the socket's file have let it in. */
function processOf(socket: Socket): { pid: number; uid: number } | null {
  try {
    return peerCredentials(socket);
  } catch {
    return null;
  }
}

/** Makes a peer's allowance of a kind: as configured, or so large that nobody meets it. */
function limiterOf({ rateLimit, clock }: IdentityServerOptions): (limit: Limit) => RateLimiter {
  const { attestation = true, signing = true } = rateLimit ?? {};
  const off: ReadonlySet<Limit> = new Set([
    ...(attestation ? [] : (["attest"] as const)),
    ...(signing ? [] : (["x509", "jwt"] as const)),
  ]);
  return (limit) => new RateLimiter({ ...(off.has(limit) ? UNLIMITED : LIMITS[limit]), clock });
}

interface Parts {
  readonly bundles: Bundles;
  readonly own: ServerSvid;
  readonly federation: Federation;
}

function activeCa(authority: Authority) {
  return authority.x509.slots.find(({ state }) => state === "active")?.authority;
}

/** Everything that says who you are, before it listens. */
export class IdentityServer {
  /** `spiffe://<trust domain>/spire/server`. */
  readonly svid: Cell<X509Svid>;
  readonly bundles: Bundles;
  readonly federation: Federation;
  /** DER authorities of our own trust domain. */
  readonly authorities: Cell<readonly Uint8Array[]>;
  readonly nodes: Nodes;
  readonly #options: IdentityServerOptions;
  readonly #metrics: IdentityMetrics;
  readonly #services: readonly ((options: GuardOptions) => Service)[];
  readonly #callers: Callers;
  /** A peer has one allowance, on whichever address it comes. */
  readonly #limiters: Readonly<Record<Limit, RateLimiter>>;
  readonly #progress: BundleProgress;
  readonly #stop: (() => void)[];

  private constructor(options: IdentityServerOptions, { bundles, own, federation }: Parts) {
    const { store, registry, authority, clock, log } = options;
    this.#options = options;
    this.#metrics = identityMetrics(options.metrics);
    this.bundles = bundles;
    this.federation = federation;
    this.svid = own.svid;
    this.authorities = new Cell(bundles.own.value.x509Authorities);
    const issuer = new Issuer(authority, registry, this.#metrics.issued, options.agentTtlMs);
    const verifiers = options.nodeVerifiers?.(this.authorities) ?? [];
    this.nodes = new Nodes({ store, registry, issuer, clock, verifiers });
    const { adminIds = [] } = options;
    this.#callers = new Callers({ registry, store, clock, adminIds, roles: options.roles ?? [] });
    const limiter = limiterOf(options);
    this.#limiters = {
      attest: limiter("attest"),
      x509: limiter("x509"),
      jwt: limiter("jwt"),
      status: limiter("status"),
      admin: limiter("admin"),
    };
    const watch = new NodeWatch({ registry, bundles, clock });
    this.#progress = new BundleProgress({ registry, bundles, clock });
    this.#services = [
      (by) => guard(Agent, agentService(registry, this.nodes, this.#progress, log), by),
      (by) => guard(Entry, entryService(registry), by),
      (by) => guard(SVID, svidService(registry, issuer, bundles), by),
      (by) => guard(BundleApi, bundleService(bundles, authority.upstream), by),
      (by) => guard(LocalAuthority, localAuthorityService(authority, bundles), by),
      (by) => guard(TrustDomainApi, trustDomainService(federation, bundles), by),
      (by) => guard(Node, watch.service(), by),
    ];
    registerIdentityGauges(options.metrics, {
      databaseUp: () => Number(options.databaseUp?.() ?? true),
      agents: () => registry.nodes().filter(({ banned }) => !banned).length,
      entries: () => registry.counts.entries,
      caExpiry: () => (activeCa(authority)?.notAfterMs ?? 0) / 1_000,
      caBegin: () => (activeCa(authority)?.issuedAtMs ?? 0) / 1_000,
      bundleSequence: () => Number(bundles.own.value.sequence),
      federation: () => federation.states(),
    });
    const unwatch = bundles.own.watch((bundle: Bundle) => this.#publish(bundle));
    this.#stop = [own.stop, unwatch, () => federation.close(), this.#pruneEvery(PRUNE_MS)];
  }

  static async open(options: IdentityServerOptions): Promise<IdentityServer> {
    const { store, registry, bundles, clock, log } = options;
    const onError = (error: unknown) => log.error("the server's own certificate could not be renewed", { error });
    const own = await keepServerSvid({ ...options, bundle: bundles.own, onError });
    const config = options.federation ?? { federatesWith: [] };
    try {
      const federation = await Federation.open({ config, svid: own.svid, bundles, store, registry, clock, log });
      return new IdentityServer(options, { bundles, own, federation });
    } catch (error) {
      own.stop();
      throw error;
    }
  }

  #publish({ x509Authorities }: Bundle): void {
    const before = this.authorities.value;
    const same = (der: Uint8Array, index: number): boolean => Buffer.compare(der, before[index] ?? EMPTY) === 0;
    // A change of JWT keys is none to those who watch this.
    if (x509Authorities.length !== before.length || !x509Authorities.every(same)) {
      this.authorities.set(x509Authorities);
    }
  }

  #pruneEvery(periodMs: number): () => void {
    const { registry, clock, log } = this.#options;
    let cancel = (): void => {};
    const schedule = (): void => {
      cancel = clock.after(periodMs, () => {
        const pruned = [
          registry.prune(),
          this.bundles.prune(clock.now(), clock.now() - DAY_MS),
          this.nodes.prune(this.#options.pruneAgents ?? null),
        ];
        Promise.all(pruned).catch((error: unknown) => log.error("expired records could not be taken out", { error }));
        schedule();
      });
    };
    schedule();
    return () => cancel();
  }

  /** Listens on every address and the admin socket, or on none. Errors: `port-in-use`, `unavailable`. */
  async listen(options: ListenOptions): Promise<Listening> {
    const tcp: RpcListener<Caller>[] = [];
    let bundleEndpoint: HttpListener | null = null;
    const closeAll = async (): Promise<void> => {
      await Promise.all([...tcp, bundleEndpoint].map((listener) => listener?.close()));
    };
    try {
      for (const address of options.listen) {
        tcp.push(await this.#listenTls(address, options));
      }
      bundleEndpoint = await this.federation.listen();
      const local = await this.#listenAdmin(options);
      const unwatch = [this.#disconnectThrownOut(tcp), this.#disconnectUnproven(tcp)];
      return {
        addresses: tcp.map(({ port }, index) => ({ host: options.listen[index]?.host ?? "", port })),
        bundleEndpoint: bundleEndpoint === null ? null : { host: bundleEndpoint.host, port: bundleEndpoint.port },
        close: async () => {
          for (const end of unwatch) {
            end();
          }
          await local.close();
          await closeAll();
        },
      };
    } catch (error) {
      await closeAll();
      throw error;
    }
  }

  /** Stops what works by the clock. */
  close(): void {
    for (const stop of this.#stop) {
      stop();
    }
  }

  async #listenTls(
    address: { readonly host: string; readonly port: number },
    options: ListenOptions,
  ): Promise<RpcListener<Caller>> {
    const { log } = this.#options;
    const guarded = this.#guarded((call) => listener.peerOf(call));
    const listener: RpcListener<Caller> = await listenTls<Caller>(address, this.svid, {
      services: [...this.#services.map((service) => service(guarded)), this.#admin(options, guarded)],
      identify: (socket) => this.#identify(socket),
      grpc: STREAM_LIMITS,
      onRefused: (error, remote) =>
        log.debug("a connection was refused", { remote, error: error instanceof Error ? error.message : error }),
    });
    return listener;
  }

  async #listenAdmin(options: ListenOptions): Promise<RpcListener<Caller>> {
    const guarded = this.#guarded((call) => listener.peerOf(call));
    const listener: RpcListener<Caller> = await listenUnix<Caller>(options.adminSocket, 0o600, {
      services: [
        ...this.#services.map((service) => service(guarded)),
        this.#admin(options, guarded),
        guard(Health, healthService(), guarded),
      ],
      identify: (socket) => ({ kind: "local", process: processOf(socket) }),
      grpc: STREAM_LIMITS,
    });
    return listener;
  }

  #admin({ admin, seen }: ListenOptions, guarded: GuardOptions): Service {
    const { store, registry, changes, clock, authority } = this.#options;
    const { signer } = authority;
    const ownSvid = async (): Promise<readonly SeenCertificate[]> => [
      { spiffeId: this.svid.value.id, serial: this.svid.value.serial, seenBy: "server" },
      ...(await seen()),
    ];
    const own = { store, registry, changes, signer, clock, seen: ownSvid, progress: this.#progress };
    return guard(Admin, { ...admin, ...adminService(own) }, guarded);
  }

  #guarded(callerOf: GuardOptions["callerOf"]): GuardOptions {
    const { log, clock, changes } = this.#options;
    const { called } = this.#metrics;
    return { callers: this.#callers, limiters: this.#limiters, changes, log, called, now: () => clock.now(), callerOf };
  }

  /** INVARIANT: what the peer proved by the chain it sent, and nothing else, says who it is. */
  #identify(socket: TLSSocket): Caller {
    const address = socket.remoteAddress ?? "";
    const chain = peerChain(socket);
    if (chain.length === 0) {
      return { kind: "remote", address, chain, svid: null, fault: null };
    }
    const verified = this.#verify(chain);
    return verified.ok
      ? { kind: "remote", address, chain, svid: verified, fault: null }
      : { kind: "remote", address, chain, svid: null, fault: verified };
  }

  #verify(chain: readonly Uint8Array[]): VerifiedX509Svid | RefusedX509Svid {
    return verifyX509Svid(chain, (domain) => this.#bundleOf(domain), this.#options.clock.now());
  }

  /** Of another trust domain nobody is known but an administrator that the configuration names. */
  #bundleOf(domain: TrustDomain): Bundle | undefined {
    const { trustDomain, adminIds = [] } = this.#options;
    if (domain === trustDomain) {
      return this.bundles.own.value;
    }
    const isKnown = adminIds.some((id) => trustDomainOf(id) === domain);
    return isKnown ? (this.bundles.federatedWith(domain) ?? undefined) : undefined;
  }

  #isWelcome(id: SpiffeId): boolean {
    const { registry } = this.#options;
    return !registry.isKilled(id) && registry.node(id)?.banned === false;
  }

  /** A connection whose proof rests on an authority that was taken out does not stay. */
  #disconnectUnproven(listeners: readonly RpcListener<Caller>[]): () => void {
    const { clock } = this.#options;
    const isLost = (caller: Caller): boolean => {
      if (caller.kind === "local" || caller.svid === null) {
        return false;
      }
      const bundle = this.#bundleOf(caller.svid.trustDomain);
      return bundle === undefined || hasLostAuthority(caller.chain, bundle, clock.now());
    };
    let count = this.authorities.value.length;
    return this.authorities.watch((next) => {
      const removed = next.length <= count;
      count = next.length;
      if (removed) {
        clock.after(REVOKED_MS, () => {
          for (const listener of listeners) {
            listener.disconnect(isLost);
          }
        });
      }
    });
  }

  /** An identity that was thrown out or cut off keeps no connection. */
  #disconnectThrownOut(listeners: readonly RpcListener<Caller>[]): () => void {
    const disconnect = (id: SpiffeId): void => {
      // Each of its calls is refused from now on; what ends later is the connection, when its streams have said why.
      this.#options.clock.after(GOODBYE_MS, () => {
        if (!this.#isWelcome(id)) {
          for (const listener of listeners) {
            listener.disconnect((caller) => caller.kind === "remote" && caller.svid?.id === id);
          }
        }
      });
    };
    return this.#options.registry.watch((change) => {
      if (change.kind === "node" && (change.node === null || change.node.banned)) {
        disconnect(change.id);
      } else if (change.kind === "kill" && change.kill !== null) {
        disconnect(change.id);
      }
    });
  }
}
