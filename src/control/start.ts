/** The control plane of one server process: what it needs, and what it gives. `run/server` wires it to the registry. */
import type { TLSSocket } from "node:tls";
import type { Registry as MetricsRegistry } from "prom-client";
import type { ProxyState, StatusDocument } from "../core/api/admin.ts";
import { snapshotName } from "../core/api/snapshot.ts";
import type { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import type { Issue } from "../core/base/errors.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { type SpiffeId, sidecarId, type TrustDomain } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { verifyX509Svid } from "../core/spiffe/x509-svid.ts";
import { AggregatedDiscoveryService } from "../gen/envoy/service/discovery/v3/discovery_pb.js";
import { Reports as ReportsService } from "../gen/everyhop/proxy/report_pb.js";
import type { Log } from "../io/log.ts";
import { listenTls, type RpcListener } from "../io/rpc/listen.ts";
import { peerChain } from "../io/tls.ts";
import { watchFiles } from "../io/watch-files.ts";
import { adminHandlers, type ControlAdmin } from "./admin.ts";
import { adsHandlers } from "./ads.ts";
import type { Identities } from "./identities.ts";
import { Jwks } from "./jwks.ts";
import { KillSwitch } from "./kill.ts";
import { Loop } from "./loop.ts";
import { type ControlGauges, controlMetrics, registerGauges } from "./metrics.ts";
import { OpaBundles } from "./opa-bundles.ts";
import { readMeshConfig } from "./policies.ts";
import { Push } from "./push.ts";
import { Reports } from "./reports.ts";
import type { Service } from "./service.ts";
import { proxies, statusDocument } from "./status.ts";
import { whyDocument } from "./why.ts";

export interface ControlOptions {
  readonly trustDomain: TrustDomain;
  /** Absolute paths of the files and folders with Istio's resources; they are watched. */
  readonly policies: readonly string[];
  /** Places in messages are written relative to it: the mesh's folder. */
  readonly baseDir: string;
  /** meshConfig as the configuration file has it (Istio's names), plain data; core/policy/mesh-config reads it. */
  readonly meshConfig: unknown;
  readonly services: Cell<readonly Service[]>;
  /** Where sidecars come; port 0 takes a free one. Several: one per bridge under `--isolate`. */
  readonly listen: readonly { readonly host: string; readonly port: number }[];
  /** The server's own SVID, shown to sidecars. */
  readonly svid: Cell<X509Svid>;
  /** DER authorities of our trust domain: what a sidecar's chain must end in. */
  readonly authorities: Cell<readonly Uint8Array[]>;
  readonly identities: Identities;
  /** Where the World's version is kept over a restart. */
  readonly versionFile?: string;
  /** What is wrong with the server's other parts, for the status; default nothing. */
  readonly problems?: () => readonly Issue[];
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: MetricsRegistry;
}

export interface Control {
  /** The addresses bound, in the order of `listen`. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** Handlers for the admin socket; the server adds its own of the same service. */
  readonly admin: ControlAdmin;
  status(): Promise<StatusDocument>;
  close(): Promise<void>;
}

/**
 * Starts the control plane: reads the policies, listens, follows changes. Errors: `config-invalid` with every issue where the
 * files are not valid from the start, `port-in-use`.
 */
export async function startControl(options: ControlOptions): Promise<Control> {
  const { clock, identities, log } = options;
  const metrics = controlMetrics(options.metrics);
  const files = watchFiles(options.policies, { clock });
  const { meshConfig } = readMeshConfig(options.meshConfig);
  const jwks = new Jwks({ clock, log, allowed: meshConfig.jwksAllowed });
  const opa = new OpaBundles(meshConfig, options);
  let loop: Loop;
  try {
    loop = new Loop({
      ...options,
      metrics,
      files: files.state,
      kills: identities.kills,
      keySets: jwks.keySets,
      bundles: opa.bundles,
    });
    jwks.follow(loop.world.policies);
  } catch (error) {
    files.close();
    opa.close();
    throw error;
  }
  const reports = new Reports({
    isNode: (node) => push.nodes().includes(node),
    isOrder: (order) => identities.kills.value.some((kill) => kill.order === order),
    now: () => clock.now(),
    onReceipt: (node) => killSwitch.progressed(node),
    onWanted: (uri) => jwks.want(uri),
  });
  const push = new Push(loop.world, { clock, log, metrics, onProgress: (node) => killSwitch.progressed(node) });
  const killSwitch = new KillSwitch({ ...options, push, reports, publishKills: () => loop.refreshKills() });
  loop.onWorld = (world) => {
    push.publish(world);
    jwks.follow(world.policies);
    reports.keepOnly(new Set(push.nodes()));
  };
  const status = async (): Promise<StatusDocument> =>
    statusDocument({
      loop,
      push,
      reports,
      issued: await identities.known(),
      kills: identities.kills.value,
      server: options.svid.value,
      now: clock.now(),
      keyFaults: jwks.faults,
      problems: [...loop.problems, ...(options.problems?.() ?? [])],
    });
  const parts = { loop, push, reports };
  registerGauges(options.metrics, gaugesOf(parts, identities));
  const close = async (listeners: readonly RpcListener<SpiffeId>[]): Promise<void> => {
    files.close();
    jwks.close();
    opa.close();
    loop.close();
    await Promise.all(listeners.map((listener) => listener.close()));
  };
  const listeners = await listenAll(options, parts, close);
  return {
    addresses: listeners.map(({ port }, index) => ({ host: options.listen[index]?.host ?? "", port })),
    admin: adminHandlers({
      status,
      why: (id) => whyDocument(id, reports.denials, push.world),
      killSwitch,
    }),
    status,
    close: () => close(listeners),
  };
}

interface Parts {
  readonly loop: Loop;
  readonly push: Push;
  readonly reports: Reports;
}

/** Binds every address, or none. */
async function listenAll(
  options: ControlOptions,
  { push, reports }: Parts,
  close: (listeners: readonly RpcListener<SpiffeId>[]) => Promise<void>,
): Promise<readonly RpcListener<SpiffeId>[]> {
  const listeners: RpcListener<SpiffeId>[] = [];
  try {
    for (const address of options.listen) {
      const listener = await listenTls(address, options.svid, {
        services: [
          { service: AggregatedDiscoveryService, handlers: adsHandlers(push) },
          { service: ReportsService, handlers: reports.handlers() },
        ],
        identify: (socket) => identifySidecar(socket, options),
        onRefused: (error, remote) =>
          options.log.warn("connection to the control plane refused", { remote, error: messageOf(error) }),
      });
      listeners.push(listener);
    }
  } catch (error) {
    await close(listeners);
    throw error;
  }
  return listeners;
}

const KEEPALIVE_MS = 15_000;

/** INVARIANT: only a sidecar's identity, proven by a chain to our own trust domain's authorities, opens the control plane. */
function identifySidecar(socket: TLSSocket, { trustDomain, authorities, clock }: ControlOptions): SpiffeId {
  // A sidecar whose machine went away is noticed, and its stream ended.
  socket.setKeepAlive(true, KEEPALIVE_MS);
  const own = { x509Authorities: authorities.value };
  const bundleOf = (domain: TrustDomain) => (domain === trustDomain ? own : undefined);
  const verified = verifyX509Svid(peerChain(socket), bundleOf, clock.now());
  if (!verified.ok) {
    throw new EveryhopError("unauthenticated", `${verified.reason}: ${verified.message}`);
  }
  if (verified.id !== sidecarId(trustDomain)) {
    throw new EveryhopError("permission-denied", `\`${verified.id}\` is not a sidecar`);
  }
  return verified.id;
}

function gaugesOf({ loop, push, reports }: Parts, identities: Identities): ControlGauges {
  return {
    worldVersion: () => loop.world.version,
    problems: () => loop.problems.length,
    kills: () => identities.kills.value.length,
    proxies: () => {
      const counts: Record<ProxyState, number> = { synced: 0, pending: 0, stale: 0, rejected: 0 };
      for (const { state } of proxies(push)) {
        counts[state]++;
      }
      return counts;
    },
    identities: () =>
      push.world.services.flatMap((service) => {
        const identity = reports.identityOf(snapshotName(service));
        return identity === null ? [] : [{ ...identity, service: service.name, namespace: service.namespace }];
      }),
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
