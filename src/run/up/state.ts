/**
 * The state folder of a mesh: one supervisor at a time (a kernel lock), a record of everything that was made outside the
 * folder, and the recovery of a run that was killed.
 */
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import koffi from "koffi";
import { EveryhopError } from "../../core/base/errors.ts";
import { reasonOf } from "./mesh-file.ts";

export const RECORD_FILE = "run.json";
const LOCK_FILE = "lock";

/** A process by pid and start time (clock ticks since boot): the pair is never reused within one boot. */
export interface ProcessName {
  readonly pid: number;
  readonly startTime: string;
}

/** What a run made that would outlive a SIGKILL, written down before (or as soon as) it is made. */
export interface RunRecord {
  /** Random; in the environment of every service as EVERYHOP_RUN. */
  readonly run: string;
  readonly bootId: string;
  readonly dir: string;
  readonly supervisor: ProcessName;
  /** The launcher whose end ends this run, where there is one. */
  readonly launcher: ProcessName | null;
  readonly processes: readonly ProcessName[];
  /** Files outside the state folder: sockets whose path would be too long, hosts files. */
  readonly files: readonly string[];
  readonly networkNamespaces: readonly string[];
  readonly links: readonly string[];
  readonly nftTables: readonly string[];
}

/** `DIR/.everyhop`-like folder with owner-only rights. Errors: `storage-failed`. */
export function makeStateDir(stateDir: string): void {
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    chmodSync(stateDir, 0o700);
  } catch (error) {
    throw new EveryhopError("storage-failed", `cannot make the state folder \`${stateDir}\`: ${reasonOf(error)}`, {
      hint: "name a folder you may write with `--state DIR`",
      cause: error,
    });
  }
}

export interface StateLock {
  release(): void;
}

const LOCK_EX = 2;
const LOCK_NB = 4;
let flock: ((fd: number, operation: number) => number) | null = null;

/**
 * Takes the folder for this process; null where another one has it. flock(2), because the kernel gives it up with the
 * process however that ends, and two that find a dead run at once cannot both take it.
 */
export function lockState(stateDir: string): StateLock | null {
  flock ??= koffi.load(null).func("int flock(int fd, int operation)") as (fd: number, operation: number) => number;
  let fd: number;
  try {
    fd = openSync(join(stateDir, LOCK_FILE), "a", 0o600);
  } catch (error) {
    throw new EveryhopError("storage-failed", `cannot write in \`${stateDir}\`: ${reasonOf(error)}`, {
      hint: "name a folder you may write with `--state DIR`",
      cause: error,
    });
  }
  if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    closeSync(fd);
    return null;
  }
  return { release: () => closeSync(fd) };
}

/** Null where there is none, or none that can be read: then nothing is known to be left. */
export function readRecord(stateDir: string): RunRecord | null {
  try {
    return JSON.parse(readFileSync(join(stateDir, RECORD_FILE), "utf8")) as RunRecord;
  } catch {
    return null;
  }
}

export function removeRecord(stateDir: string): void {
  rmSync(join(stateDir, RECORD_FILE), { force: true });
}

/** Writes a file of the state folder whole or not at all, readable by the owner only. Errors: `storage-failed`. */
export function writeState(file: string, content: string, mode = 0o600): void {
  try {
    writeFileSync(`${file}.new`, content, { mode });
    renameSync(`${file}.new`, file);
  } catch (error) {
    rmSync(`${file}.new`, { force: true });
    throw new EveryhopError("storage-failed", `cannot write \`${file}\`: ${reasonOf(error)}`, {
      hint: "make room or name another folder with `--state DIR`",
      cause: error,
    });
  }
}

/** The record of the run in progress; each change is on disk before the function returns. */
export class RunJournal {
  readonly #file: string;
  #record: RunRecord;

  constructor(stateDir: string, record: RunRecord) {
    this.#file = join(stateDir, RECORD_FILE);
    this.#record = record;
    this.#save();
  }

  get record(): RunRecord {
    return this.#record;
  }

  add(list: "processes", item: ProcessName): void;
  add(list: "files" | "networkNamespaces" | "links" | "nftTables", item: string): void;
  add(list: "processes" | "files" | "networkNamespaces" | "links" | "nftTables", item: ProcessName | string): void {
    this.#record = { ...this.#record, [list]: [...this.#record[list], item] };
    this.#save();
  }

  #save(): void {
    writeState(this.#file, JSON.stringify(this.#record, null, 2));
  }
}

/** Changes with every boot: what was recorded before it is gone with it. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "unknown";
  }
}
