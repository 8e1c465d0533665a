/** The running mesh as scripts see it: `up --detach --json`, and `mesh.json` in the state folder. Stable. */
import { join } from "node:path";
import type { Plan, ServicePlan } from "./plan.ts";
import { writeState } from "./state.ts";

/** One service of a running mesh. Addresses are those seen inside its namespace under `--isolate`. */
export interface ServiceDocument {
  readonly namespace: string;
  readonly spiffeId: string;
  readonly pid: number;
  readonly port: number;
  readonly app: string;
  readonly inbound: string;
  readonly metrics: string;
  readonly outbound: Readonly<Record<string, string>>;
  /** Set once its process has ended; the rest of the mesh runs on. */
  readonly exited?: { readonly time: string; readonly code: number | null; readonly signal: string | null };
}

export interface MeshDocument {
  readonly ready: true;
  readonly readyMs: number;
  readonly trustDomain: string;
  readonly stateDir: string;
  readonly admin: string;
  readonly server: string;
  readonly adminSocket: string;
  readonly agentSocket: string;
  readonly metrics: string;
  readonly isolated: boolean;
  readonly supervisorPid: number;
  readonly services: Readonly<Record<string, ServiceDocument>>;
}

export const MESH_DOCUMENT_FILE = "mesh.json";

export function meshDocument(plan: Plan, pids: ReadonlyMap<string, number>, readyMs: number): MeshDocument {
  return {
    ready: true,
    readyMs: Math.round(readyMs),
    trustDomain: plan.mesh.trustDomain,
    stateDir: plan.stateDir,
    admin: `http://${plan.http}`,
    server: plan.server[0] ?? "",
    adminSocket: plan.adminSocket,
    agentSocket: `unix://${plan.agentSocket}`,
    metrics: `http://${plan.http}/metrics`,
    isolated: plan.services.some(({ place }) => place !== null),
    supervisorPid: process.pid,
    services: Object.fromEntries(
      plan.services.map((service) => [service.service.name, serviceDocument(service, pids.get(service.service.name))]),
    ),
  };
}

function serviceDocument(
  { service, spiffeId, app, inbound, metrics, outbound }: ServicePlan,
  pid: number | undefined,
): ServiceDocument {
  return {
    namespace: service.namespace,
    spiffeId,
    pid: pid ?? 0,
    port: service.port,
    app,
    inbound,
    metrics: `http://${metrics}/metrics`,
    outbound,
  };
}

export function writeMeshDocument(document: MeshDocument): void {
  writeState(join(document.stateDir, MESH_DOCUMENT_FILE), `${JSON.stringify(document, null, 2)}\n`);
}
