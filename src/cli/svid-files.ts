import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EveryhopError } from "../core/base/errors.ts";

/** Writes certificates, keys and tokens into a folder. Errors: `storage-failed`. */
export function writeSvidFiles(dir: string, files: Readonly<Record<string, string>>): void {
  try {
    mkdirSync(dir, { recursive: true });
    for (const [name, contents] of Object.entries(files)) {
      // A private key is the owner's alone from its first byte on; a file that was there may have been open to others.
      rmSync(join(dir, name), { force: true });
      writeFileSync(join(dir, name), contents, { mode: name.endsWith(".key") ? 0o600 : 0o644, flag: "wx" });
    }
  } catch (error) {
    throw new EveryhopError("storage-failed", `cannot write to \`${dir}\`: ${(error as Error).message}`, {
      hint: "choose another `--out-dir`",
      cause: error,
    });
  }
}
