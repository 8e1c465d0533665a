/** The files that the policy commands read: those named, and those in the folders named. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { EveryhopError } from "../core/base/errors.ts";
import type { SourceFile } from "../core/policy/parse.ts";

const EXTENSIONS = /\.(ya?ml|json)$/;

/** Every resource file named by `paths`, folders walked in order of name. */
export function readPolicyFiles(paths: readonly string[]): SourceFile[] {
  return paths.flatMap((path) => findFiles(path, true)).map((file) => ({ file, text: readText(file) }));
}

export function findFiles(path: string, named: boolean): string[] {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch {
    throw new EveryhopError("file-missing", `there is no file or folder \`${path}\``, { hint: "check the path" });
  }
  if (isFolder) {
    return readdirSync(path)
      .filter((name) => !name.startsWith(".") && name !== "node_modules")
      .sort()
      .flatMap((name) => findFiles(join(path, name), false));
  }
  return named || EXTENSIONS.test(path) ? [path] : [];
}

export function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(error as Error).message}`);
  }
}
