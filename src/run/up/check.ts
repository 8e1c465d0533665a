/** Everything that can be found wrong with a mesh before anything is started. */
import { relative } from "node:path";
import { judge, NOTHING_ACCEPTED } from "../../control/change.ts";
import { PolicyReader, readMeshConfig } from "../../control/policies.ts";
import { describeWorkload } from "../../control/world.ts";
import { CODES, type Code } from "../../core/base/codes.ts";
import { configError, EveryhopError, formatIssue, type Issue, toEveryhopError } from "../../core/base/errors.ts";
import type { MeshConfig } from "../../core/policy/mesh-config.ts";
import { systemClock } from "../../io/clock.ts";
import { watchFiles } from "../../io/watch-files.ts";
import { type MeshFile, readMeshFile } from "./mesh-file.ts";
import { portIssues } from "./plan.ts";
import { findPrograms, type Program } from "./program.ts";

export interface CheckedMesh {
  readonly mesh: MeshFile;
  readonly programs: ReadonlyMap<string, Program>;
}

/**
 * Reads and checks the mesh of `dir`: its file, the programs it names, its policies. Errors: `config-invalid` or
 * `file-missing` with every issue, each with its place.
 */
export async function checkMesh(dir: string, environment: NodeJS.ProcessEnv): Promise<CheckedMesh> {
  const mesh = readMeshFile(dir);
  const { programs, issues } = findPrograms(mesh, environment);
  const all = [...issues, ...policyIssues(mesh)];
  if (all.length > 0) {
    throw issuesError(all);
  }
  return { mesh, programs };
}

/** Errors: `port-in-use` with every port that the mesh file asks for and somebody has. */
export async function requireFreePorts(mesh: MeshFile): Promise<void> {
  const issues = await portIssues(mesh);
  if (issues.length > 0) {
    throw issuesError(issues);
  }
}

/** What the server would refuse to start with, told as it would. */
function policyIssues(mesh: MeshFile): readonly Issue[] {
  let meshConfig: MeshConfig;
  try {
    meshConfig = readMeshConfig(mesh.meshConfig).meshConfig;
  } catch (error) {
    const { code, message, issues, hint } = toEveryhopError(error);
    const place = mesh.document.place(["meshConfig"]);
    return issues.length > 0
      ? issues.map((issue) => ({ ...issue, ...place }))
      : [{ code, severity: "error", message, ...place, ...(hint === undefined ? {} : { hint }) }];
  }
  const watched = watchFiles(mesh.policies, { clock: systemClock });
  try {
    const { files, faults } = watched.state.value;
    const named = new Map([...files].map(([path, text]) => [relative(mesh.dir, path), text]));
    const workloads = mesh.services.map((service) => describeWorkload({ ...service, endpoints: [] }, mesh.trustDomain));
    const court = { mesh: { trustDomain: mesh.trustDomain, meshConfig, workloads }, reader: new PolicyReader() };
    return [...faults, ...judge(named, NOTHING_ACCEPTED, court).refused];
  } finally {
    watched.close();
  }
}

/** An error with the issues' own code, where they have one in common that is in the table. */
export function issuesError(issues: readonly Issue[]): EveryhopError {
  const [first] = issues;
  if (first !== undefined && Object.hasOwn(CODES, first.code) && issues.every(({ code }) => code === first.code)) {
    const hint = first.hint === undefined ? {} : { hint: first.hint };
    return new EveryhopError(first.code as Code, formatIssue(first), { issues, ...hint });
  }
  return configError(issues);
}
