/** One small file that a process keeps of itself: written whole or not at all, and durable once written. */
import { constants } from "node:fs";
import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { EveryhopError } from "../core/base/errors.ts";

/** Errors: `storage-failed`. */
export interface StateFile {
  /** Null where it was never written. */
  read(): Promise<Uint8Array | null>;
  write(bytes: Uint8Array): Promise<void>;
}

export function memoryStateFile(): StateFile {
  let kept: Uint8Array | null = null;
  return {
    read: async () => kept,
    write: async (bytes) => {
      kept = bytes.slice();
    },
  };
}

/** 0600. Its folder is there. */
export function diskStateFile(path: string): StateFile {
  return {
    read: () =>
      attempt(path, "read", () =>
        readFile(path).catch((error: NodeJS.ErrnoException) => {
          if (error.code === "ENOENT") {
            return null;
          }
          throw error;
        }),
      ),
    write: (bytes) => attempt(path, "write", () => replace(path, bytes)),
  };
}

async function replace(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  // The rename itself is durable only once the folder is.
  const folder = await open(dirname(path), constants.O_RDONLY);
  await folder.sync().finally(() => folder.close());
}

async function attempt<T>(path: string, verb: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw new EveryhopError("storage-failed", `could not ${verb} \`${path}\`: ${(cause as Error).message}`, {
      cause,
      hint: "make room on the disk of the data folder, and let it belong to the user who runs the server",
    });
  }
}
