/** Configuration files of the processes of a mesh, as `everyhop server|agent|proxy --config` read them. */
import { join } from "node:path";
import { stringify } from "yaml";
import type { Plan, ServicePlan } from "./plan.ts";
import { writeState } from "./state.ts";

/** Under --isolate: what the sidecar's listeners for captured connections take. */
export const CAPTURE_OUTBOUND_PORT = 15_001;
export const CAPTURE_INBOUND_PORT = 15_006;
export const SIDECAR_METRICS_PORT = 15_020;

export const bundleFile = ({ stateDir }: Plan): string => join(stateDir, "server", "bundle.pem");
const oneOrMany = (addresses: readonly string[]): string | readonly string[] =>
  addresses.length === 1 ? (addresses[0] ?? "") : addresses;

export function serverConfig(plan: Plan): object {
  const { mesh, services } = plan;
  return {
    trustDomain: mesh.trustDomain,
    dataDir: join(plan.stateDir, "server"),
    listen: oneOrMany(plan.server),
    adminSocket: plan.adminSocket,
    http: plan.http,
    xds: oneOrMany(plan.xds),
    policies: mesh.policies,
    meshConfig: mesh.meshConfig,
    ca: mesh.ca,
    services: Object.fromEntries(
      services.map(({ service, inbound }) => [
        service.name,
        {
          namespace: service.namespace,
          serviceAccount: service.serviceAccount,
          labels: service.labels,
          port: service.port,
          protocol: service.protocol,
          endpoints: [inbound],
        },
      ]),
    ),
  };
}

export function agentConfig(plan: Plan, joinTokenFile: string, sidecarId: string): object {
  return {
    trustDomain: plan.mesh.trustDomain,
    server: plan.server[0],
    dataDir: join(plan.stateDir, "agent"),
    joinTokenFile,
    trustBundle: bundleFile(plan),
    socket: plan.agentSocket,
    brokerSocket: plan.brokerSocket,
    brokers: [sidecarId],
  };
}

export function proxyConfig(plan: Plan, service: ServicePlan): object {
  const { service: described, place } = service;
  return {
    service: described.name,
    namespace: described.namespace,
    trustDomain: plan.mesh.trustDomain,
    agentSocket: plan.agentSocket,
    brokerSocket: plan.brokerSocket,
    control: plan.xds[0],
    workload: { spiffeId: service.spiffeId, pidFile: service.pidFile },
    inbound: service.inbound,
    app: service.app,
    // Under --isolate there is one listener for all that its process dials; the kernel says what it meant.
    ...(place === null
      ? { outbound: service.outbound }
      : { capture: { outbound: `127.0.0.1:${CAPTURE_OUTBOUND_PORT}` } }),
    metrics: service.metrics,
    accessLog: "-",
  };
}

/** Writes a configuration as YAML and says where. */
export function writeConfig(dir: string, name: string, config: object, mode = 0o600): string {
  const file = join(dir, `${name}.yaml`);
  writeState(file, stringify(config), mode);
  return file;
}
