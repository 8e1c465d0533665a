/** The sidecar's process: its data path, its identity from the agent, its configuration from the control plane. */
import { Cell } from "../core/base/cell.ts";
import { sidecarId } from "../core/spiffe/id.ts";
import { systemClock } from "../io/clock.ts";
import { type HttpListener, listenHttp } from "../io/http.ts";
import type { Log } from "../io/log.ts";
import { processMetrics } from "../io/metrics.ts";
import { formatAddress } from "../io/net.ts";
import { AccessLog } from "../proxy/access-log.ts";
import { TIMEOUTS } from "../proxy/context.ts";
import { ControlLink } from "../proxy/control-link.ts";
import { compileSnapshot } from "../proxy/enforce.ts";
import { readSnapshot } from "../proxy/read-snapshot.ts";
import { Reporter } from "../proxy/reports.ts";
import { Sidecar } from "../proxy/sidecar.ts";
import { makeFacts } from "../proxy/state.ts";
import { Subscription } from "../proxy/subscribe.ts";
import { watchBroker } from "../workload/broker.ts";
import { watchX509 } from "../workload/workload-api.ts";
import type { X509Source } from "../workload/x509-source.ts";
import { watchPidFile } from "./pid-file.ts";
import type { ProxyConfig } from "./proxy-config.ts";
import { sidecarGauges } from "./proxy-metrics.ts";

/** The line on standard output once every listener is up; identity and policy may come later: `/readyz` says. */
export interface ProxyReady {
  readonly ready: true;
  readonly service: string;
  readonly namespace: string;
  readonly inbound: string;
  readonly outbound: Readonly<Record<string, string>>;
  /** `http://host:port/metrics`, or null. */
  readonly metrics: string | null;
}

export interface ProxyProcess {
  readonly ready: ProxyReady;
  /** Accepts nothing new and lets what is under way end for up to 5 s. */
  close(): Promise<void>;
}

const DRAIN_MS = 5_000;

/** Starts the sidecar of a configuration. Errors: `port-in-use`, `unavailable`; then nothing is left behind. */
export async function runProxy(config: ProxyConfig, log: Log): Promise<ProxyProcess> {
  const service = { name: config.service, namespace: config.namespace };
  const sidecar = new Sidecar({
    ...config,
    service,
    log,
    clock: systemClock,
    timeouts: TIMEOUTS,
    accessLog: ({ families }) => new AccessLog(config.accessLog, families.dropped.with("log")),
  });
  await sidecar.listen();
  const own = watchX509({
    socket: config.agentSocket,
    spiffeId: sidecarId(config.trustDomain),
    log: log.with({ identity: "sidecar" }),
    clock: systemClock,
  });
  const identity = followService(config, sidecar, own, log);
  const link = new ControlLink({
    targets: config.control,
    trustDomain: config.trustDomain,
    svid: own.svid,
    bundles: own.bundles,
    log,
    clock: systemClock,
  });
  const reporter = new Reporter({
    link,
    service,
    denials: sidecar.denials,
    dryRuns: sidecar.dryRuns,
    svid: sidecar.state.svid,
  });
  sidecar.keys.ask = (uri) => reporter.wantKeys(uri);
  sidecar.onReceipt = (receipt) => reporter.receipt(receipt);
  const subscription = new Subscription({ link, service, apply: (bytes) => apply(bytes, sidecar, reporter) });
  const close = async (): Promise<void> => {
    subscription.close();
    await sidecar.close(DRAIN_MS);
    reporter.close();
    link.close();
    identity.close();
    own.close();
  };
  try {
    const http = config.metrics === null ? null : await serve(config, sidecar, subscription, own, identity.problem);
    return {
      ready: readyLine(config, sidecar, http),
      async close() {
        await close();
        await http?.close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Puts a snapshot in force, whole or not at all. */
function apply(bytes: Uint8Array, sidecar: Sidecar, reporter: Reporter): void {
  const snapshot = readSnapshot(bytes);
  const facts = makeFacts(snapshot, compileSnapshot(snapshot));
  reporter.keepOrders(new Set(snapshot.kills.map(({ order }) => order)));
  sidecar.state.facts.set(facts);
}

/** The service's identity, that of the process named by `pid` or `pidFile`: it comes and goes with that process. */
function followService(config: ProxyConfig, sidecar: Sidecar, own: X509Source, log: Log) {
  const { workload, brokerSocket } = config;
  const { state } = sidecar;
  const watched =
    workload.pidFile === null
      ? { pid: new Cell<number | null>(workload.pid), close() {} }
      : watchPidFile(workload.pidFile, systemClock);
  let source: X509Source | null = null;
  const follow = (pid: number | null): void => {
    source?.close();
    source = null;
    state.svid.set(null);
    if (pid === null) {
      return;
    }
    const { spiffeId } = workload;
    const identity = log.with({ identity: "service", pid });
    const next = watchBroker({ brokerSocket, own, workload: { pid }, spiffeId, log: identity, clock: systemClock });
    source = next;
    next.bundles.watch((bundles) => source === next && state.bundles.set(bundles));
    next.svid.watch((svid) => source === next && state.svid.set(svid));
  };
  watched.pid.watch(follow);
  follow(watched.pid.value);
  return {
    /** Why there is no identity. */
    problem: (): string => {
      const said = source?.state.value;
      return said === undefined
        ? `no process: \`${workload.pidFile ?? ""}\` names none`
        : said.kind === "connecting" || said.kind === "ready"
          ? "the agent was asked and has not answered"
          : said.message;
    },
    close(): void {
      watched.close();
      source?.close();
    },
  };
}

function serve(
  config: ProxyConfig,
  sidecar: Sidecar,
  subscription: Subscription,
  own: X509Source,
  identityProblem: () => string,
): Promise<HttpListener> {
  const { telemetry, state } = sidecar;
  const { registry } = telemetry;
  processMetrics(registry);
  sidecarGauges(registry, {
    snapshotVersion: () => state.facts.value?.snapshot.version ?? 0,
    connected: () => subscription.state.value.kind === "synced",
    svidNotAfter: () => state.svid.value?.notAfter ?? 0,
    connections: () => sidecar.connections.size,
  });
  const contentType = "text/plain; charset=utf-8";
  return listenHttp(config.metrics as NonNullable<ProxyConfig["metrics"]>, {
    "/metrics": () => ({ contentType: "text/plain; version=0.0.4; charset=utf-8", body: registry.text() }),
    "/healthz": () => ({ contentType, body: "ok\n" }),
    "/readyz": () => {
      const problem = unready(sidecar, subscription, own, identityProblem);
      return { status: problem === null ? 200 : 503, contentType, body: `${problem ?? "ok"}\n` };
    },
  });
}

/** Why the sidecar does not serve; null where it does. A control plane that is away is no reason: the last snapshot is in force. */
function unready(
  { state }: Sidecar,
  subscription: Subscription,
  own: X509Source,
  identityProblem: () => string,
): string | null {
  if (own.svid.value === null) {
    const said = own.state.value;
    return `no identity of the sidecar's own: ${"message" in said ? said.message : said.kind}`;
  }
  if (state.facts.value === null) {
    const said = subscription.state.value;
    return `no snapshot: ${"message" in said ? said.message : "the control plane has not answered"}`;
  }
  return state.svid.value === null ? `no identity of the service: ${identityProblem()}` : null;
}

function readyLine(config: ProxyConfig, sidecar: Sidecar, http: HttpListener | null): ProxyReady {
  const at = (listener: string): string => {
    const address = sidecar.address(listener);
    return address === null ? "" : formatAddress(address);
  };
  return {
    ready: true,
    service: config.service,
    namespace: config.namespace,
    inbound: at("inbound"),
    outbound: Object.fromEntries(Object.keys(config.outbound).map((name) => [name, at(`outbound/${name}`)])),
    metrics: http === null ? null : `http://${formatAddress(http)}/metrics`,
  };
}
