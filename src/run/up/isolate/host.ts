/** `--isolate`: each service in a network namespace, a mount namespace and under a user of its own, with no rights beyond it. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { configError } from "../../../core/base/errors.ts";
import { CAPTURE_INBOUND_PORT, CAPTURE_OUTBOUND_PORT, SIDECAR_METRICS_PORT } from "../configs.ts";
import type { Host } from "../host.ts";
import type { MeshFile } from "../mesh-file.ts";
import { CLI_ENTRY } from "../own.ts";
import { basePlan, baseService, type Plan, type ServicePlan, socketFolder } from "../plan.ts";
import { freePorts } from "../ports.ts";
import type { Program } from "../program.ts";
import { type RunJournal, writeState } from "../state.ts";
import { freeSubnet, makeNetworks, type Subnet } from "./network.ts";
import { planScreens, type Room, type RoomTools, roomScript } from "./room.ts";
import { findTool, requireIsolation } from "./tools.ts";
import { chooseUsers, type ServiceUsers } from "./users.ts";

const LOOPBACK = "127.0.0.1";

/** Errors: `not-supported`, `permission-denied`, `file-missing` where this machine or user cannot. */
export async function isolatedHost(): Promise<Host> {
  requireIsolation();
  let network: Subnet | null = null;
  return {
    async plan(mesh, programs, stateDir, run) {
      const users = chooseUsers(mesh);
      refuseReservedPorts(mesh);
      network = await freeSubnet(mesh.services.length);
      return planIsolated(mesh, programs, stateDir, run, users, network);
    },
    async setUp(plan, journal) {
      if (network !== null) {
        makeRooms(plan, journal);
        await makeNetworks(plan, network, Number(plan.xds[0]?.split(":")[1]), journal);
      }
    },
    sharedMode: 0o755,
    cwd: ({ mesh }) => realpathSync(mesh.dir),
    wrapService: (plan, service) => wrap(plan, service, "service"),
    wrapSidecar: (plan, service) => wrap(plan, service, "sidecar"),
  };
}

/** Ports of the sidecar's own in each namespace. */
function refuseReservedPorts(mesh: MeshFile): void {
  const reserved = [CAPTURE_OUTBOUND_PORT, CAPTURE_INBOUND_PORT, SIDECAR_METRICS_PORT];
  const issues = mesh.services.flatMap(({ name, port, appPort }) =>
    (["port", "appPort"] as const)
      .filter((key) => reserved.includes((key === "port" ? port : appPort) ?? 0))
      .map((key) => ({
        code: "config-invalid",
        severity: "error" as const,
        message: `port ${key === "port" ? port : appPort} is the sidecar's own under \`--isolate\``,
        hint: "choose another one",
        ...mesh.document.place(["services", name, key]),
      })),
  );
  if (issues.length > 0) {
    throw configError(issues);
  }
}

async function planIsolated(
  mesh: MeshFile,
  programs: ReadonlyMap<string, Program>,
  stateDir: string,
  run: string,
  users: ReadonlyMap<string, ServiceUsers>,
  network: Subnet,
): Promise<Plan> {
  const [server, http, xds] = await freePorts(3, LOOPBACK, new Set());
  const { services } = mesh;
  const addressOf = new Map(services.map(({ name }, index) => [name, network.address(index)]));
  return {
    ...basePlan(mesh, stateDir, run, socketFolder(stateDir, run).dir),
    server: [`${LOOPBACK}:${server}`],
    http: `${LOOPBACK}:${http}`,
    xds: [`${network.host}:${xds}`],
    services: services.map((service) => {
      const address = addressOf.get(service.name) ?? "";
      const { uid, gid, sidecarUid } = users.get(service.name) ?? { uid: 65_534, gid: 65_534, sidecarUid: 65_534 };
      return {
        ...baseService(mesh, service, programs, stateDir),
        uid,
        app: `${LOOPBACK}:${service.appPort ?? service.port}`,
        inbound: `${address}:${CAPTURE_INBOUND_PORT}`,
        metrics: `${address}:${SIDECAR_METRICS_PORT}`,
        outbound: Object.fromEntries(
          services.filter((o) => o !== service).map(({ name, port }) => [name, `${addressOf.get(name)}:${port}`]),
        ),
        place: { networkNamespace: `evh-${run}-${service.name}`, address, uid, gid, sidecarUid },
      };
    }),
  };
}

const scriptFile = (plan: Plan, { service }: ServicePlan, kind: string): string =>
  join(plan.stateDir, "isolate", `${service.name}.${kind}.sh`);

function wrap(plan: Plan, service: ServicePlan, kind: "service" | "sidecar"): string[] {
  const namespace = service.place?.networkNamespace ?? "";
  return [tool("ip"), "netns", "exec", namespace, tool("sh"), scriptFile(plan, service, kind)];
}

const tool = (name: string): string => findTool(name) ?? name;

/** Writes the scripts that make each process's view of the file system, and gives folders to their users. */
function makeRooms(plan: Plan, journal: RunJournal): void {
  const tools: RoomTools = { mount: tool("mount"), mkdir: tool("mkdir"), cp: tool("cp"), setpriv: tool("setpriv") };
  const folder = join(plan.stateDir, "isolate");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stage = `/run/everyhop-${plan.run}`;
  journal.add("files", stage);
  mkdirSync(stage, { mode: 0o700 });
  const hostsFile = join(folder, "hosts");
  writeState(hostsFile, hosts(plan), 0o644);
  const packageRoot = packageOf(CLI_ENTRY);
  for (const service of plan.services) {
    const { dir, sidecarDir, program, place } = service;
    if (place === null) {
      continue;
    }
    execFileSync(tool("chown"), ["-R", "-h", "-P", `${place.uid}:${place.gid}`, dir]);
    const room = { stateDir: plan.stateDir, hostsFile, cwd: realpathSync(plan.mesh.dir) };
    const programs = [program.path, program.script, program.executable].flatMap((file) =>
      file ? [dirname(file)] : [],
    );
    const rooms: readonly (readonly ["service" | "sidecar", Room])[] = [
      [
        "service",
        {
          ...room,
          uid: place.uid,
          gid: place.gid,
          own: [plan.socketDir, dir],
          reachable: [room.cwd, ...modulesAbove(room.cwd), ...programs],
        },
      ],
      [
        "sidecar",
        {
          ...room,
          uid: place.sidecarUid,
          gid: place.sidecarUid,
          own: [plan.socketDir, dirname(plan.brokerSocket), sidecarDir],
          reachable: [packageRoot, ...modulesAbove(packageRoot), dirname(realpathSync(process.execPath)), room.cwd],
        },
      ],
    ];
    for (const [kind, one] of rooms) {
      const screens = planScreens([...new Set(one.reachable.map((path) => realpathSync(path)))], plan.stateDir);
      writeState(scriptFile(plan, service, kind), roomScript(one, screens, stage, tools), 0o700);
    }
  }
}

/** The folder of the package that a source file belongs to. */
function packageOf(file: string): string {
  let at = dirname(file);
  while (!existsSync(join(at, "package.json")) && at !== dirname(at)) {
    at = dirname(at);
  }
  return at;
}

/** Folders that Node looks for packages in, from `folder` upwards. */
function modulesAbove(folder: string): string[] {
  const found: string[] = [];
  for (let at = folder; ; at = dirname(at)) {
    const modules = join(at, "node_modules");
    if (existsSync(modules)) {
      found.push(realpathSync(modules));
    }
    if (at === dirname(at)) {
      return found;
    }
  }
}

function hosts(plan: Plan): string {
  const lines = plan.services.map(({ service, place }) => {
    const { name, namespace } = service;
    return `${place?.address}\t${name} ${name}.${namespace} ${name}.${namespace}.svc ${name}.${namespace}.svc.cluster.local`;
  });
  return ["127.0.0.1\tlocalhost", ...lines, ""].join("\n");
}
