/** Third-party vectors: the files of `../shared/conformance`, which test/peers.ts finds by walking up. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { peer, without } from "./peers.ts";

/** For `test(name, { skip: withoutConformance() }, …)`: the reason to skip, false where the vectors are here. */
export function withoutConformance(): string | false {
  return without("conformance");
}

/** A vector file as JSON. */
export function readVectors(path: string): unknown {
  return JSON.parse(readFileSync(join(peer("conformance") ?? "", path), "utf8"));
}
