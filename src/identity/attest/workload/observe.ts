/** Looking at a process twice: what was attested in between is believed only where both looks show the same one. */
import { EveryhopError } from "../../../core/base/errors.ts";
import { processCgroupText } from "../../../io/cgroup.ts";
import { exitedPidfds, type PeerCredentials } from "../../../io/peer.ts";
import {
  type Executable,
  imageName,
  type ProcessStatus,
  processExecutable,
  processStat,
  processStatus,
  sameFile,
} from "../../../io/process.ts";

/** Which process is meant, and how we know of it. */
export interface ProcessReference {
  readonly pid: number;
  /** Held open while the reference is used: as long as it has not exited, the pid is of no other process. */
  readonly pidfd: number | null;
  /** Of the socket it called from, with what it ran when we accepted (`processImage`); null where it was only named. */
  readonly caller: (PeerCredentials & { readonly image: string }) | null;
}

/** One process at one moment. */
export interface Observation extends ProcessStatus {
  readonly pid: number;
  readonly startTime: string;
  readonly executable: Executable | null;
  /** Text of /proc/PID/cgroup; empty where we may not know. */
  readonly cgroups: string;
  /** Null where its parent is outside of what we see. */
  readonly parent: ParentObservation | null;
}

export interface ParentObservation {
  readonly pid: number;
  readonly startTime: string;
  readonly executable: Executable | null;
}

/** Looks at the process. Errors: `not-found` where it is gone, `permission-denied` where it is not the one that called. */
export function observe(reference: ProcessReference): Observation {
  const { pid, caller } = reference;
  const stat = processStat(pid);
  const status = processStatus(pid);
  const executable = processExecutable(pid);
  if (stat === null || status === null || stat.state === "Z" || stat.state === "X") {
    throw new EveryhopError("not-found", `process ${pid} is gone`);
  }
  if (caller !== null && (status.uid !== caller.uid || status.gid !== caller.gid)) {
    throw new EveryhopError("permission-denied", `process ${pid} changed its user or group since it connected`);
  }
  if (caller !== null && imageName(stat.startTime, executable) !== caller.image) {
    throw new EveryhopError("permission-denied", `process ${pid} became another program since it connected`);
  }
  const cgroups = processCgroupText(pid);
  return { pid, startTime: stat.startTime, ...status, executable, cgroups, parent: observeParent(stat.parentPid) };
}

function observeParent(pid: number): ParentObservation | null {
  if (pid <= 0) {
    return null;
  }
  const before = processStat(pid);
  const executable = processExecutable(pid);
  const after = processStat(pid);
  // RACE: a parent that exits here leaves its pid to another process; the child then has a new parent, seen next time.
  return before === null || before.startTime !== after?.startTime
    ? null
    : { pid, startTime: before.startTime, executable };
}

/** Throws unless `reference` still is what `before` shows; see `changeBetween`. */
export function confirm(reference: ProcessReference, before: Observation): void {
  const change = changeBetween(before, observe(reference));
  if (change !== null) {
    throw new EveryhopError("permission-denied", `process ${reference.pid} ${change} while it was attested`);
  }
  if (reference.pidfd !== null && exitedPidfds([reference.pidfd])[0] === true) {
    throw new EveryhopError("not-found", `process ${reference.pid} is gone`);
  }
}

/** What makes `after` another process than `before`, as a verb phrase, or null. */
export function changeBetween(before: Observation, after: Observation): string | null {
  if (before.startTime !== after.startTime) {
    return "exited and its id was used again";
  }
  if (!sameExecutable(before.executable, after.executable)) {
    return "became another program";
  }
  if (before.uid !== after.uid || before.gid !== after.gid) {
    return "changed its user or group";
  }
  if (before.groups.join() !== after.groups.join()) {
    return "changed its groups";
  }
  if (before.cgroups !== after.cgroups) {
    return "moved to another control group";
  }
  const { parent: was } = before;
  const { parent: is } = after;
  return was?.pid === is?.pid && was?.startTime === is?.startTime && sameExecutable(was?.executable, is?.executable)
    ? null
    : "changed its parent";
}

function sameExecutable(a: Executable | null | undefined, b: Executable | null | undefined): boolean {
  return a && b ? a.path === b.path && sameFile(a.file, b.file) : (a ?? null) === (b ?? null);
}
