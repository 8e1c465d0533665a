/**
 * Selectors of a Unix process, from the kernel:
 *
 * | selector | from | can the process itself choose it? |
 * |---|---|---|
 * | `unix:uid:N` `unix:gid:N` `unix:user:NAME` `unix:group:NAME` `unix:supplementary_gid:N` `unix:supplementary_group:NAME` | credentials | no |
 * | `unix:path:/abs` `unix:sha256:HEX` | the file it runs, through /proc/PID/exe | it can run any program its user may run, with an environment of its choice |
 * | `unix:script:/abs` `unix:script:sha256:HEX` | an interpreter's command line | **yes**: it can rewrite its own arguments |
 * | `unix:parent:path:/abs` `unix:parent:sha256:HEX` | its parent's file | it can be started by any program that starts others |
 * | `unix:process:PID:START` `unix:parent:process:PID:START` | pid and start time (clock ticks since boot) | no |
 *
 * A program or a script does not say who started it, nor with which environment: whoever may run it can have its selectors.
 * A supervisor that starts a process knows its pid and start time, and can register exactly that one: another process, a
 * child, a later one with the same pid do not match, whatever they call themselves or run.
 */
import { basename } from "node:path";
import { fileIdentity, sameFile } from "../../../../io/process.ts";
import type { WorkloadAttestor } from "../attest.ts";
import { limitAtOnce } from "../limit.ts";
import type { Observation, ParentObservation } from "../observe.ts";
import { type FileDigests, makeFileDigests } from "./digest.ts";
import { groupName, userName } from "./names.ts";
import { findScript } from "./script.ts";

interface Files {
  readonly digests: FileDigests;
  /** Process image → the path under which its file was seen. A package upgrade replaces the file, not what runs. */
  readonly paths: Map<string, string>;
}

const MAX_REMEMBERED_PATHS = 10_000;

export interface UnixOptions {
  /** Whether to say which program, script and parent it is; default: true. */
  readonly discoverWorkloadPath?: boolean;
  /** Larger files have no digest, in bytes; 0: as far as `makeFileDigests` goes; negative: no file has one. As SPIRE's. */
  readonly workloadSizeLimit?: number;
}

/** Attestations at once: each may read whole files. */
const MAX_AT_ONCE = 32;

/** The unix attestor; `now` in ms, for the cache of digests. */
export function unixAttestor(now: () => number, options: UnixOptions = {}): WorkloadAttestor {
  const { discoverWorkloadPath = true, workloadSizeLimit = 0 } = options;
  const files: Files = { digests: makeFileDigests(now, workloadSizeLimit), paths: new Map() };
  const limited = limitAtOnce(MAX_AT_ONCE);
  return {
    kind: "unix",
    attest: (process, needed) =>
      limited(async () => {
        const parts = await Promise.all([
          credentialSelectors(process),
          ...(discoverWorkloadPath
            ? [
                executableSelectors("unix", process, files, needed),
                scriptSelectors(process, files.digests, needed),
                parentSelectors(process, files, needed),
              ]
            : []),
        ]);
        return [`unix:process:${process.pid}:${process.startTime}`, ...parts.flat()];
      }),
  };
}

async function credentialSelectors({ uid, gid, groups }: Observation): Promise<string[]> {
  const [user, group] = await Promise.all([userName(uid), groupName(gid)]);
  const selectors = [`unix:uid:${uid}`, `unix:gid:${gid}`];
  if (user !== null) {
    selectors.push(`unix:user:${user}`);
  }
  if (group !== null) {
    selectors.push(`unix:group:${group}`);
  }
  for (const supplementary of groups) {
    selectors.push(`unix:supplementary_gid:${supplementary}`);
    const name = await groupName(supplementary);
    if (name !== null) {
      selectors.push(`unix:supplementary_group:${name}`);
    }
  }
  return selectors;
}

async function executableSelectors(
  prefix: string,
  { pid, startTime, executable }: ParentObservation,
  { digests, paths }: Files,
  needed: (prefix: string) => boolean,
): Promise<string[]> {
  if (executable === null) {
    return [];
  }
  const selectors: string[] = [];
  const image = `${pid}:${startTime}:${executable.file.device}:${executable.file.inode}`;
  // The kernel's path is that of the process's own mount namespace, and may be of a file since removed or replaced: it is
  // believed where the same file stands under it here, or stood there while this same image ran.
  const here = await fileIdentity(executable.path);
  if (here !== null && sameFile(here, executable.file)) {
    remember(paths, image, executable.path);
  }
  const path = paths.get(image);
  if (path !== undefined) {
    selectors.push(`${prefix}:path:${path}`);
  }
  if (needed(`${prefix}:sha256:`)) {
    const digest = await digests.digest(`/proc/${pid}/exe`, executable.file);
    if (digest !== null) {
      selectors.push(`${prefix}:sha256:${digest}`);
    }
  }
  return selectors;
}

function remember(paths: Map<string, string>, image: string, path: string): void {
  paths.delete(image);
  paths.set(image, path);
  if (paths.size > MAX_REMEMBERED_PATHS) {
    paths.delete(paths.keys().next().value as string);
  }
}

async function scriptSelectors(
  process: Observation,
  digests: FileDigests,
  needed: (prefix: string) => boolean,
): Promise<string[]> {
  if (process.executable === null || !needed("unix:script:")) {
    return [];
  }
  const script = await findScript(process.pid, basename(process.executable.path));
  if (script === null) {
    return [];
  }
  const selectors = script.paths.map((path) => `unix:script:${path}`);
  if (needed("unix:script:sha256:")) {
    const digest = await digests.digest(script.file, script.identity);
    if (digest !== null) {
      selectors.push(`unix:script:sha256:${digest}`);
    }
  }
  return selectors;
}

async function parentSelectors(
  { parent }: Observation,
  files: Files,
  needed: (prefix: string) => boolean,
): Promise<string[]> {
  if (parent === null) {
    return [];
  }
  return [
    `unix:parent:process:${parent.pid}:${parent.startTime}`,
    ...(await executableSelectors("unix:parent", parent, files, needed)),
  ];
}
