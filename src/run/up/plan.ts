/** Where everything of a mesh will be: addresses, ports, folders, users. Made whole before anything is started. */
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Protocol } from "../../core/api/snapshot.ts";
import { configError, type Issue } from "../../core/base/errors.ts";
import { type SpiffeId, workloadId } from "../../core/spiffe/id.ts";
import type { MeshFile, MeshService } from "./mesh-file.ts";
import { freePorts, portFault } from "./ports.ts";
import type { Program } from "./program.ts";

/** A service's place under `--isolate`. */
export interface Place {
  readonly networkNamespace: string;
  /** Its address in the mesh's own network. */
  readonly address: string;
  readonly uid: number;
  readonly gid: number;
  readonly sidecarUid: number;
}

export interface ServicePlan {
  readonly service: MeshService;
  readonly program: Program;
  readonly spiffeId: SpiffeId;
  readonly uid: number;
  readonly protocol: Protocol;
  /** `address:port` where its process listens. */
  readonly app: string;
  readonly inbound: string;
  readonly metrics: string;
  /** Service → what its process dials to reach it. */
  readonly outbound: Readonly<Record<string, string>>;
  /** Folder of its own, which the process may write. */
  readonly dir: string;
  /** Folder of its sidecar's configuration. */
  readonly sidecarDir: string;
  readonly pidFile: string;
  readonly place: Place | null;
}

export interface Plan {
  readonly mesh: MeshFile;
  readonly run: string;
  readonly stateDir: string;
  /** Addresses where agents attach (the first is the one told). */
  readonly server: readonly string[];
  readonly http: string;
  /** Where sidecars get their snapshot; the last one is what sidecars dial. */
  readonly xds: readonly string[];
  readonly adminSocket: string;
  readonly agentSocket: string;
  readonly brokerSocket: string;
  /** Folder of the agent's socket, which services may enter. */
  readonly socketDir: string;
  readonly services: readonly ServicePlan[];
}

/** Longest path a unix socket can have (sun_path, with its ending zero): unix(7). */
const MAX_SOCKET_PATH = 107;
const LOOPBACK = "127.0.0.1";

export function makeRunId(): string {
  return randomBytes(3).toString("hex");
}

/** Where sockets go: the state folder, or a short path of the user's own where that one is too long for a socket. */
export function socketFolder(stateDir: string, run: string): { readonly dir: string; readonly outside: boolean } {
  const longest = join(stateDir, "broker", "broker.sock");
  return Buffer.byteLength(longest) <= MAX_SOCKET_PATH
    ? { dir: stateDir, outside: false }
    : { dir: join(tmpdir(), `everyhop-${process.getuid?.() ?? 0}-${run}`), outside: true };
}

/** Ports asked for that are taken. */
export async function portIssues(mesh: MeshFile): Promise<Issue[]> {
  const issues: Issue[] = [];
  for (const { name, appPort } of mesh.services) {
    const fault = appPort === null ? null : await portFault(LOOPBACK, appPort);
    if (fault !== null) {
      const hint = "end what listens there, choose another `appPort`, or leave it out to get a free port as PORT";
      const place = mesh.document.place(["services", name, "appPort"]);
      issues.push({ code: "port-in-use", severity: "error", message: `port ${appPort} ${fault}`, hint, ...place });
    }
  }
  return issues;
}

/** Everything on 127.0.0.1: an inbound, an app and a metrics port per service, an outbound one for each other service. */
export async function planLoopback(
  mesh: MeshFile,
  programs: ReadonlyMap<string, Program>,
  stateDir: string,
  run: string,
): Promise<Plan> {
  const { services } = mesh;
  const fixed = new Set(services.flatMap(({ appPort }) => appPort ?? []));
  const perService = 3 + services.length - 1;
  const ports = await freePorts(3 + services.length * perService, LOOPBACK, fixed);
  const take = (): string => `${LOOPBACK}:${ports.pop()}`;
  const sockets = socketFolder(stateDir, run).dir;
  const uid = process.getuid?.() ?? 0;
  return {
    ...basePlan(mesh, stateDir, run, sockets),
    server: [take()],
    http: take(),
    xds: [take()],
    services: services.map((service) => ({
      ...baseService(mesh, service, programs, stateDir),
      uid,
      app: service.appPort === null ? take() : `${LOOPBACK}:${service.appPort}`,
      inbound: take(),
      metrics: take(),
      outbound: Object.fromEntries(services.filter((o) => o !== service).map(({ name }) => [name, take()])),
      place: null,
    })),
  };
}

type Base = Pick<Plan, "mesh" | "run" | "stateDir" | "adminSocket" | "agentSocket" | "brokerSocket" | "socketDir">;

export function basePlan(mesh: MeshFile, stateDir: string, run: string, sockets: string): Base {
  const socketDir = join(sockets, "run");
  return {
    mesh,
    run,
    stateDir,
    adminSocket: join(sockets, "admin.sock"),
    agentSocket: join(socketDir, "agent.sock"),
    // Apart: under --isolate only sidecars see it.
    brokerSocket: join(sockets, "broker", "broker.sock"),
    socketDir,
  };
}

type BaseService = Pick<
  ServicePlan,
  "service" | "program" | "spiffeId" | "protocol" | "dir" | "sidecarDir" | "pidFile"
>;

export function baseService(
  mesh: MeshFile,
  service: MeshService,
  programs: ReadonlyMap<string, Program>,
  stateDir: string,
): BaseService {
  const sidecarDir = join(stateDir, "sidecars", service.name);
  const program = programs.get(service.name);
  if (program === undefined) {
    throw configError([]);
  }
  return {
    service,
    program,
    spiffeId: workloadId(mesh.trustDomain, service.namespace, service.serviceAccount),
    protocol: service.protocol,
    dir: join(stateDir, "services", service.name),
    sidecarDir,
    pidFile: join(sidecarDir, "service.pid"),
  };
}
