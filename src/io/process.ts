/**
 * What /proc says of a process (Linux). Each function reads at its own moment: who puts several answers together has to
 * check that they are of one process (`startTime`, or a pidfd that still lives). Source: proc(5).
 */
import { type BigIntStats, readFileSync, statSync } from "node:fs";
import { open, readFile, readlink, stat } from "node:fs/promises";

export interface ProcessStat {
  readonly parentPid: number;
  /** Field 22: clock ticks since boot at which it started. With the pid it names one process for all time of one boot. */
  readonly startTime: string;
  /** `Z` and `X` are dead. */
  readonly state: string;
}

export interface ProcessStatus {
  /** Effective ids. */
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** Which file something is, so that another one under the same name is not taken for it. */
export interface FileIdentity {
  readonly device: bigint;
  readonly inode: bigint;
  readonly size: bigint;
  readonly modifiedNs: bigint;
  /** Cannot be set back by the file's owner, unlike `modifiedNs`. */
  readonly changedNs: bigint;
}

export interface Executable {
  /** As the kernel has it; another mount namespace may mean another file by it, and " (deleted)" may end it. */
  readonly path: string;
  readonly file: FileIdentity;
}

/** A command line longer than this is not looked at. */
const MAX_COMMAND_LINE = 64 * 1024;

/** Null where there is no such process. */
export async function processStat(pid: number): Promise<ProcessStat | null> {
  return parseStat(await readText(`/proc/${pid}/stat`));
}

function parseStat(text: string | null): ProcessStat | null {
  // The name in parentheses is the process's own choice, and may hold spaces and parentheses.
  const fields = text?.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, parentPid] = fields ?? [];
  const startTime = fields?.[19];
  if (state === undefined || parentPid === undefined || startTime === undefined) {
    return null;
  }
  return { state, parentPid: Number(parentPid), startTime };
}

/** Null where there is no such process. */
export async function processStatus(pid: number): Promise<ProcessStatus | null> {
  const text = await readText(`/proc/${pid}/status`);
  const numbers = (name: string): number[] | undefined =>
    new RegExp(`^${name}:[ \\t]*(.*)$`, "m")
      .exec(text ?? "")?.[1]
      ?.split(/\s+/)
      .filter(Boolean)
      .map(Number);
  const uid = numbers("Uid")?.[1];
  const gid = numbers("Gid")?.[1];
  return uid === undefined || gid === undefined ? null : { uid, gid, groups: numbers("Groups") ?? [] };
}

/** The program that runs; null where we may not know (another user's process and no rights), or it is gone. */
export async function processExecutable(pid: number): Promise<Executable | null> {
  const link = `/proc/${pid}/exe`;
  try {
    const [path, file] = await Promise.all([readlink(link), fileIdentity(link)]);
    return file === null ? null : { path, file };
  } catch {
    return null;
  }
}

/** The arguments as the process shows them: it can write what it likes there. Null where too long or not to be had. */
export async function processArguments(pid: number): Promise<readonly string[] | null> {
  const handle = await open(`/proc/${pid}/cmdline`).catch(() => null);
  if (handle === null) {
    return null;
  }
  try {
    const buffer = Buffer.alloc(MAX_COMMAND_LINE);
    let length = 0;
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null);
      length += bytesRead;
      if (length === buffer.length) {
        return null;
      }
      if (bytesRead === 0) {
        break;
      }
    }
    const text = buffer.subarray(0, length).toString("utf8");
    return text === "" ? null : text.replace(/\0$/, "").split("\0");
  } catch {
    return null;
  } finally {
    await handle.close();
  }
}

export async function processDirectory(pid: number): Promise<string | null> {
  return readlink(`/proc/${pid}/cwd`).catch(() => null);
}

/** The identity of the file `path` names now (links followed), or null. */
export async function fileIdentity(path: string): Promise<FileIdentity | null> {
  try {
    return identityOfStats(await stat(path, { bigint: true }));
  } catch {
    return null;
  }
}

export function identityOfStats({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): FileIdentity {
  return { device: dev, inode: ino, size, modifiedNs: mtimeNs, changedNs: ctimeNs };
}

/** Whether both are one file, unchanged. */
export function sameFile(a: FileIdentity, b: FileIdentity): boolean {
  return (
    a.device === b.device &&
    a.inode === b.inode &&
    a.size === b.size &&
    a.modifiedNs === b.modifiedNs &&
    a.changedNs === b.changedNs
  );
}

/** The network namespace of a process, as the kernel names it; null where we may not know. */
export async function networkNamespace(pid: number): Promise<string | null> {
  return readlink(`/proc/${pid}/ns/net`).catch(() => null);
}

async function readText(path: string): Promise<string | null> {
  return readFile(path, "utf8").catch(() => null);
}

/**
 * Names what a process runs at this moment: another one after exec(2), and for another process under the same pid. Read at
 * once, for the moment a connection is accepted. Null where there is no such process.
 */
export function processImage(pid: number): string | null {
  const stat = parseStat(readStat(pid));
  return stat === null ? null : imageName(stat.startTime, executableFile(pid));
}

/** Null where we may not know: then its start is all there is to tell the process by. */
function executableFile(pid: number): Pick<FileIdentity, "device" | "inode"> | null {
  try {
    const { dev, ino } = statSync(`/proc/${pid}/exe`, { bigint: true });
    return { device: dev, inode: ino };
  } catch {
    return null;
  }
}

function readStat(pid: number): string | null {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return null;
  }
}

/** The same name from what was read already. */
export function imageName(startTime: string, file: Pick<FileIdentity, "device" | "inode"> | null): string {
  return file === null ? startTime : `${startTime}:${file.device}:${file.inode}`;
}
