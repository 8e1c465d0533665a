import { chmodSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { EveryhopError } from "../../core/base/errors.ts";

/**
 * Takes a folder for this process alone; the function returned gives it back. SQLite's lock, since it goes with the process,
 * killed or not. Errors: `storage-failed`, also where another process has it.
 */
export function lockFolder(dir: string): () => void {
  const file = join(dir, "lock.db");
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { timeout: 0 });
    chmodSync(file, 0o600);
    database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT");
    const held = database;
    return () => held.close();
  } catch (error) {
    database?.close();
    throw new EveryhopError("storage-failed", `the folder \`${dir}\` cannot be taken: ${(error as Error).message}`, {
      hint: "another server has it: stop that one, or give this one a data folder of its own",
      cause: error,
    });
  }
}
