/**
 * What /proc says of a process (Linux). Each function reads at its own moment: who puts several answers together has to
 * check that they are of one process (`startTime`, or a pidfd that still lives). Source: proc(5).
 *
 * What comes from the kernel's own memory is read at once, synchronously: it cannot block, and a thread pool would cost ten
 * times as much. What the process can make slow (its memory, files by name) is read asynchronously.
 */
import { type BigIntStats, readFileSync, readlinkSync, statSync } from "node:fs";
import { open, readlink, stat } from "node:fs/promises";

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
export function processStat(pid: number): ProcessStat | null {
  return parseStat(readText(`/proc/${pid}/stat`));
}

/** Reads the text of /proc/PID/stat. */
export function parseStat(text: string | null): ProcessStat | null {
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
export function processStatus(pid: number): ProcessStatus | null {
  return parseStatus(readText(`/proc/${pid}/status`));
}

/** Reads the text of /proc/PID/status; the kernel escapes newlines in the name that the process gave itself. */
export function parseStatus(text: string | null): ProcessStatus | null {
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

/**
 * The program that runs; null where we may not know (another user's process and no rights), or it is gone. The stat below asks
 * the program's file system: one that a user serves himself (FUSE) refuses others at once, and so cannot hold us up.
 */
export function processExecutable(pid: number): Executable | null {
  const link = `/proc/${pid}/exe`;
  try {
    return { path: readlinkSync(link), file: identityOfStats(statSync(link, { bigint: true })) };
  } catch {
    return null;
  }
}

/**
 * Names what a process runs: another name after exec(2), and for another process under the same pid. `executable` null: its
 * start is all there is to tell it by.
 */
export function imageName(startTime: string, executable: Executable | null): string {
  return executable === null ? startTime : `${startTime}:${executable.file.device}:${executable.file.inode}`;
}

/** The same of a process at this moment, for when a connection is accepted. Null where there is no such process. */
export function processImage(pid: number): string | null {
  const found = processStat(pid);
  return found === null ? null : imageName(found.startTime, processExecutable(pid));
}

/** The network namespace of a process, as the kernel names it; null where we may not know. */
export function networkNamespace(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return null;
  }
}

/**
 * Reads of processes' memory at once. A process can put its arguments where reading them blocks for as long as it likes (a file
 * system it serves itself); such reads take up these slots, not the thread pool that everything else needs.
 */
const MEMORY_READS = 2;
const MEMORY_READ_MS = 1_000;
let memoryReads = 0;
const waitingReads: (() => void)[] = [];

/**
 * The arguments as the process shows them: it can write what it likes there. Null where too long or not to be had, or where
 * it did not come within a second.
 */
export async function processArguments(pid: number): Promise<readonly string[] | null> {
  let late = false;
  const read = async (): Promise<readonly string[] | null> => {
    while (memoryReads >= MEMORY_READS) {
      await new Promise<void>((resolve) => waitingReads.push(resolve));
    }
    memoryReads += 1;
    try {
      return late ? null : await readArguments(pid);
    } finally {
      memoryReads -= 1;
      waitingReads.shift()?.();
    }
  };
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<null>((resolve) => {
    timer = setTimeout(() => {
      late = true;
      resolve(null);
    }, MEMORY_READ_MS);
  });
  try {
    return await Promise.race([read(), timeout]);
  } finally {
    clearTimeout(timer);
  }
}

async function readArguments(pid: number): Promise<readonly string[] | null> {
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

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
