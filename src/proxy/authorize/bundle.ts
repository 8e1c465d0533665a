/** An OPA bundle: a compressed archive with `policy.wasm` and data. SPEC: openpolicyagent.org/docs/management-bundles. */
import { gunzipSync } from "node:zlib";
import { EveryhopError } from "../../core/base/errors.ts";

export interface OpaBundle {
  readonly wasm: Uint8Array<ArrayBuffer>;
  readonly data: Readonly<Record<string, unknown>>;
}

const MAX_BYTES = 64 * 1024 * 1024;
const BLOCK = 512;
const MAX_DEPTH = 32;

function invalid(message: string): EveryhopError {
  return new EveryhopError("config-invalid", `the OPA bundle is not valid: ${message}`, {
    hint: "make it with `opa build -t wasm -e ENTRYPOINT`",
  });
}

/** Errors: `config-invalid`. */
export function readBundle(bytes: Uint8Array): OpaBundle {
  let archive: Buffer;
  try {
    archive = gunzipSync(bytes, { maxOutputLength: MAX_BYTES });
  } catch (error) {
    throw invalid((error as Error).message);
  }
  let wasm: Buffer | null = null;
  const data: Record<string, unknown> = Object.create(null);
  for (const { path, body } of entriesOf(archive)) {
    if (path === "policy.wasm") {
      wasm = body;
    } else if (path === "data.json" || path.endsWith("/data.json")) {
      merge(data, path.split("/").slice(0, -1), body);
    }
  }
  if (wasm === null) {
    throw invalid("it has no `policy.wasm`");
  }
  return { wasm: new Uint8Array(wasm), data };
}

/** SPEC: POSIX ustar: a header block, then the file in whole blocks. */
function* entriesOf(archive: Buffer): Generator<{ path: string; body: Buffer }> {
  for (let at = 0; at + BLOCK <= archive.length; ) {
    const header = archive.subarray(at, at + BLOCK);
    const name = header.toString("utf8", 0, 100).split("\0", 1)[0] ?? "";
    if (name === "") {
      return;
    }
    const size = Number.parseInt(header.toString("latin1", 124, 136), 8);
    if (!(size >= 0) || at + BLOCK + size > archive.length) {
      throw invalid("an entry is longer than the archive");
    }
    const kind = header[156];
    if (kind === 0 || kind === 0x30) {
      yield { path: name.replace(/^\.?\//, ""), body: archive.subarray(at + BLOCK, at + BLOCK + size) };
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
}

/** `a/b/data.json` is the document under `data.a.b`. */
function merge(data: Record<string, unknown>, folders: readonly string[], body: Buffer): void {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch (error) {
    throw invalid(`its data is no JSON: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || folders.length > MAX_DEPTH) {
    throw invalid("its data is no document");
  }
  const holder = folders.reduce<Record<string, unknown>>((node, folder) => {
    const next = Object.hasOwn(node, folder) ? node[folder] : Object.create(null);
    node[folder] = next;
    return next as Record<string, unknown>;
  }, data);
  for (const [key, part] of Object.entries(value)) {
    holder[key] = part;
  }
}
