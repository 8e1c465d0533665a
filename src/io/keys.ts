/** Secrets at rest: private keys and what belongs to them. */
import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { chmod, type FileHandle, lstat, mkdir, open, readdir, rename, rm, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { EveryhopError } from "../core/base/errors.ts";

/** Named secrets. Names: lower-case letters, digits, `.` and `-`. Errors: `storage-failed`, `permission-denied`. */
export interface KeyStore {
  /** Null where there is none of that name. */
  read(name: string): Promise<Uint8Array | null>;
  /** All or nothing, and durable once it returns. */
  write(name: string, bytes: Uint8Array): Promise<void>;
  /** Durable once it returns. Removing what is not there is no error. */
  remove(name: string): Promise<void>;
  list(): Promise<readonly string[]>;
}

const NAME = /^[a-z0-9][a-z0-9.-]{0,127}$/;
const TEMPORARY = /^\.[a-z0-9.-]+\.tmp$/;
const MAX_SECRET_BYTES = 1024 * 1024;

function checkName(name: string): string {
  if (!NAME.test(name)) {
    throw new EveryhopError("internal", `\`${name}\` cannot name a secret`);
  }
  return name;
}

/** Secrets that end with the process; for tests, and for keys that are never to reach a disk. */
export function memoryKeyStore(): KeyStore {
  const secrets = new Map<string, Uint8Array>();
  return {
    read: async (name) => secrets.get(checkName(name))?.slice() ?? null,
    write: async (name, bytes) => void secrets.set(checkName(name), bytes.slice()),
    remove: async (name) => void secrets.delete(checkName(name)),
    list: async () => [...secrets.keys()].sort(),
  };
}

/**
 * Secrets as files, 0600, in a folder of its own, 0700 (made where missing). A folder or file that others may read is
 * refused, never repaired: who could read it may have done so. INVARIANT: at rest owner-only.
 */
export async function diskKeyStore(directory: string, maxBytes = MAX_SECRET_BYTES): Promise<KeyStore> {
  await onDisk(directory, "prepare", async () => {
    const made = await mkdir(directory, { recursive: true, mode: 0o700 });
    if (made !== undefined) {
      // An umask may have taken rights of the owner too; nobody else ever had any.
      await chmod(directory, 0o700);
    }
    refuseExposed(directory, await lstat(directory), "directory");
    for (const leftover of await readdir(directory)) {
      if (TEMPORARY.test(leftover)) {
        // RACE: its writer may have just renamed or removed it.
        await rm(join(directory, leftover), { force: true });
      }
    }
  });
  return {
    read: async (name) => readSecretFile(join(directory, checkName(name)), maxBytes),
    write: async (name, bytes) => writeSecretFile(join(directory, checkName(name)), bytes),
    remove: async (name) => {
      await onDisk(join(directory, checkName(name)), "remove", async () => {
        await unlink(join(directory, name)).catch(ignoreMissing);
        await syncFolder(directory);
      });
    },
    list: () =>
      onDisk(directory, "read", async () => (await readdir(directory)).filter((name) => NAME.test(name)).sort()),
  };
}

/** A secret in a file of its own, which has to be the owner's alone; null where there is none. */
export async function readSecretFile(path: string, maxBytes = MAX_SECRET_BYTES): Promise<Uint8Array | null> {
  return onDisk(path, "read", async () => {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(ignoreMissing);
    if (file === null) {
      return null;
    }
    try {
      const stats = await file.stat();
      refuseExposed(path, stats, "file");
      if (stats.size > maxBytes) {
        throw new EveryhopError("storage-failed", `\`${path}\` is too large to be a key`);
      }
      return await file.readFile();
    } finally {
      await file.close();
    }
  });
}

/** All or nothing, and durable once it returns. */
export async function writeSecretFile(path: string, bytes: Uint8Array): Promise<void> {
  const directory = dirname(path);
  await onDisk(path, "write", async () => {
    const temporary = join(directory, `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
    try {
      await writeDurably(temporary, bytes);
      await rename(temporary, path);
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw error;
    }
    await syncFolder(directory);
  });
}

/** A rename or removal is durable only once its folder is. */
async function syncFolder(directory: string): Promise<void> {
  const folder = await open(directory, constants.O_RDONLY);
  await folder.sync().finally(() => folder.close());
}

async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  const file: FileHandle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    // An umask may have taken rights of the owner too. Asked first: the signer's process may change no rights.
    if (((await file.stat()).mode & 0o777) !== 0o600) {
      await file.chmod(0o600);
    }
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

function refuseExposed(path: string, stats: Stats, kind: "file" | "directory"): void {
  if (kind === "file" ? !stats.isFile() : !stats.isDirectory()) {
    throw new EveryhopError("storage-failed", `\`${path}\` is not a ${kind}`);
  }
  const uid = process.geteuid?.();
  if (uid !== undefined && stats.uid !== uid) {
    throw new EveryhopError("permission-denied", `\`${path}\` belongs to user ${stats.uid}, not to ${uid}`, {
      hint: "keys are only read from files of the user that runs everyhop",
    });
  }
  if ((stats.mode & 0o077) !== 0) {
    const mode = (stats.mode & 0o777).toString(8);
    throw new EveryhopError("permission-denied", `\`${path}\` can be reached by others than its owner (mode ${mode})`, {
      hint: `others may have read the keys in it: replace them, or if nobody did, \`chmod ${kind === "file" ? "600" : "700"}\` it`,
    });
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT") {
    return null;
  }
  throw error;
}

async function onDisk<T>(path: string, verb: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof EveryhopError) {
      throw cause;
    }
    const { code = "" } = cause as NodeJS.ErrnoException;
    const hints: Record<string, string> = {
      ENOSPC: "the disk is full: make room and try again",
      EROFS: "the file system is read-only",
      EACCES: "the user that runs everyhop may not do this",
      ELOOP: "it is a symbolic link: keys are only read from plain files",
    };
    const hint = hints[code];
    throw new EveryhopError("storage-failed", `could not ${verb} \`${path}\`: ${code || String(cause)}`, {
      cause,
      ...(hint === undefined ? {} : { hint }),
    });
  }
}
