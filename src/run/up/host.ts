/** How the processes of a mesh are put on the machine: side by side on loopback, or each in a place of its own. */
import { execFileSync } from "node:child_process";
import type { MeshFile } from "./mesh-file.ts";
import { type Plan, planLoopback, type ServicePlan } from "./plan.ts";
import type { Program } from "./program.ts";
import type { RunJournal } from "./state.ts";

export interface Host {
  plan(mesh: MeshFile, programs: ReadonlyMap<string, Program>, stateDir: string, run: string): Promise<Plan>;
  /** Makes what the plan needs of the machine; each thing is in the journal before it is made. */
  setUp(plan: Plan, journal: RunJournal): Promise<void>;
  /** Rights of the folders with the agent's sockets, and of those with sidecars' configurations. */
  readonly sharedMode: number;
  /** Where commands run: the mesh's folder. */
  cwd(plan: Plan): string;
  /** What goes before a service's command; keeps the pid. */
  wrapService(plan: Plan, service: ServicePlan): readonly string[];
  wrapSidecar(plan: Plan, service: ServicePlan): readonly string[];
}

/** All on 127.0.0.1 and as the user who runs us: any process of this machine can dial any of it. */
export function loopbackHost(): Host {
  // Where the tool is, the kernel ends a service with us, however we end; elsewhere the next start does.
  const wrap = hasTool("setpriv") ? ["setpriv", "--pdeathsig", "KILL"] : [];
  return {
    plan: planLoopback,
    setUp: async () => {},
    sharedMode: 0o700,
    cwd: ({ mesh }) => mesh.dir,
    wrapService: () => wrap,
    wrapSidecar: () => [],
  };
}

export function hasTool(name: string): boolean {
  try {
    execFileSync(name, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
