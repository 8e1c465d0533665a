/** Finds the resource files under some paths, and reads them whole: what `control` watches and `policy check` reads. */
import { type BigIntStats, closeSync, fstatSync, openSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import type { Issue } from "../core/base/errors.ts";

/** What tells one state of a file from another; equal stamps, equal content, for anything but malice. */
export type Stamp = string;

export interface Scan {
  readonly files: ReadonlyMap<string, Stamp>;
  /** Folders looked into, with the stamp of the folder itself. */
  readonly folders: ReadonlyMap<string, Stamp>;
  /** What could not be looked at; what lies there is unknown, which is not the same as gone. */
  readonly faults: readonly ScanFault[];
}

export interface ScanFault {
  readonly path: string;
  readonly issue: Issue;
}

const MAX_DEPTH = 16;
const MAX_FILES = 20_000;
const MAX_FILE_BYTES = 8 * 1024 * 1024;

/** Files of these names are resources; an editor's leftovers (`.a.yaml.swp`, `a.yaml~`, `#a.yaml#`) are not. */
export function isResourceFile(name: string): boolean {
  return /^[^.#].*\.(ya?ml|json)$/i.test(name);
}

/** Looks at `paths` (files, whatever their names, and folders, with the folders in them). Never throws. */
export function scanFiles(paths: readonly string[]): Scan {
  const found = { files: new Map<string, Stamp>(), folders: new Map<string, Stamp>(), faults: [] as ScanFault[] };
  for (const path of paths) {
    look(path, 0, found);
  }
  return found;
}

type Found = { files: Map<string, Stamp>; folders: Map<string, Stamp>; faults: ScanFault[] };

function look(path: string, depth: number, found: Found): void {
  try {
    const stats = statSync(path, { bigint: true });
    if (!stats.isDirectory()) {
      lookAtFile(path, stats, found);
      return;
    }
    if (depth > MAX_DEPTH) {
      found.faults.push(fault(path, "file-missing", `folders are nested deeper than ${MAX_DEPTH}`));
      return;
    }
    const stamp = `${stats.dev}:${stats.ino}`;
    if ([...found.folders.values()].includes(stamp)) {
      // By a link, or named twice: what is in it is found already.
      return;
    }
    found.folders.set(path, stamp);
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      const isFolder = entry.isDirectory() || (entry.isSymbolicLink() && !isResourceFile(entry.name));
      if (isFolder ? isPlainFolder(join(path, entry.name), entry.name) : isResourceFile(entry.name)) {
        look(join(path, entry.name), depth + 1, found);
      }
    }
  } catch (error) {
    // A file of a folder that was there a moment ago is simply gone; a path that was asked for is missed.
    const { code } = error as NodeJS.ErrnoException;
    if (depth === 0 || code !== "ENOENT") {
      found.faults.push(unreadable(path, error));
    }
  }
}

/** Kubernetes mounts a ConfigMap through `..data`: names with a dot in front are not walked into. */
function isPlainFolder(path: string, name: string): boolean {
  if (name.startsWith(".")) {
    return false;
  }
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function lookAtFile(path: string, stats: BigIntStats, found: Found): void {
  if (!stats.isFile()) {
    found.faults.push(fault(path, "file-missing", "neither a file nor a folder"));
  } else if (stats.size > MAX_FILE_BYTES) {
    found.faults.push(fault(path, "config-invalid", `larger than ${MAX_FILE_BYTES / 1024 / 1024} MiB`));
  } else if (found.files.size >= MAX_FILES) {
    found.faults.push(fault(path, "config-invalid", `more than ${MAX_FILES} files`));
  } else {
    found.files.set(path, stampOf(stats));
  }
}

export function stampOf(stats: BigIntStats): Stamp {
  return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`;
}

/**
 * The text of a file, if it is still what `stamp` saw, before and after it was read; null where it changed.
 * An issue says why it cannot be read; a file that is not UTF-8 is one of those.
 */
export function readStamped(path: string, stamp: Stamp): string | Issue | null {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? null : unreadable(path, error).issue;
  }
  try {
    const before = stampOf(fstatSync(fd, { bigint: true }));
    const bytes = readFileSync(fd);
    if (before !== stamp || stampOf(fstatSync(fd, { bigint: true })) !== stamp) {
      return null;
    }
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    return error instanceof TypeError
      ? fault(path, "config-invalid", "not UTF-8 text").issue
      : unreadable(path, error).issue;
  } finally {
    closeSync(fd);
  }
}

function unreadable(path: string, error: unknown): ScanFault {
  const { code, message } = error as NodeJS.ErrnoException;
  const text = code === "ENOENT" ? "no such file or folder" : message;
  return fault(path, "file-missing", `cannot read \`${basename(path)}\`: ${text}`);
}

function fault(path: string, code: string, message: string): ScanFault {
  return { path, issue: { code, severity: "error", message, file: path } };
}
