/** Everything that can be found wrong with a mesh before anything is started. */
import { CODES, type Code } from "../../core/base/codes.ts";
import { configError, EveryhopError, formatIssue, type Issue } from "../../core/base/errors.ts";
import { type MeshFile, readMeshFile } from "./mesh-file.ts";
import { portIssues } from "./plan.ts";
import { findPrograms, type Program } from "./program.ts";

export interface CheckedMesh {
  readonly mesh: MeshFile;
  readonly programs: ReadonlyMap<string, Program>;
}

/**
 * Reads and checks the mesh of `dir`. Errors: `config-invalid`, `file-missing` or `port-in-use` with every issue, each with
 * its place. `ports`: whether application ports have to be free on this machine (not where each has a network of its own).
 */
export async function checkMesh(
  dir: string,
  options: { readonly ports: boolean; readonly environment: NodeJS.ProcessEnv },
): Promise<CheckedMesh> {
  const mesh = readMeshFile(dir);
  const { programs, issues } = findPrograms(mesh, options.environment);
  const all = [...issues, ...(options.ports ? await portIssues(mesh) : [])];
  if (all.length > 0) {
    throw issuesError(all);
  }
  return { mesh, programs };
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
