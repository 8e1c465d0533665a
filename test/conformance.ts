/** Third-party vectors beside the project, `../shared/conformance`: a machine without them skips by that name. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { peer, without } from "./peers.ts";

/** For `test(name, { skip }, …)`, with the text of one file; empty where the vectors are not here. */
export function conformanceText(path: string): { readonly skip: string | false; readonly text: string } {
  const folder = peer("conformance");
  return { skip: without("conformance"), text: folder === null ? "" : readFileSync(join(folder, path), "utf8") };
}
