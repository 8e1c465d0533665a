/** The folder of third-party vectors beside the project: `../shared/conformance`, found by walking up. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** The folder's path; null where this machine does not have it. */
export function conformanceFolder(): string | null {
  for (let folder = import.meta.dirname; folder !== dirname(folder); folder = dirname(folder)) {
    const candidate = join(folder, "shared/conformance");
    if (existsSync(candidate)) {
      return candidate;
    }
  }
  return null;
}

/** For `test(name, { skip: withoutConformance() }, …)`: the reason to skip, false where the vectors are here. */
export function withoutConformance(): string | false {
  return conformanceFolder() === null ? "needs conformance" : false;
}

/** A vector file as JSON. */
export function readVectors(path: string): unknown {
  return JSON.parse(readFileSync(join(conformanceFolder() ?? "", path), "utf8"));
}
