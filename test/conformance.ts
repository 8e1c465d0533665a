/** Third-party vectors beside the project, `../shared/conformance`: a machine without them skips by that name. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { peer, without } from "./peers.ts";

/** The folder's path; null where this machine does not have it. */
export function conformanceFolder(): string | null {
  return peer("conformance");
}

/** For `test(name, { skip: withoutConformance() }, …)`: the reason to skip, false where the vectors are here. */
export function withoutConformance(): string | false {
  return without("conformance");
}

/** A vector file as JSON. */
export function readVectors(path: string): unknown {
  return JSON.parse(readFileSync(join(conformanceFolder() ?? "", path), "utf8"));
}
