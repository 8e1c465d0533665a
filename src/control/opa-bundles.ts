/** The OPA bundles that meshConfig names: read here, looked at again every second, given to the sidecars that ask them. */
import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import type { MeshConfig } from "../core/policy/mesh-config.ts";
import type { Log } from "../io/log.ts";

/** By the path that meshConfig names. */
export type Bundles = ReadonlyMap<string, Uint8Array>;

const EVERY_MS = 1_000;
/** They travel in snapshots, whose messages are bounded. */
const MAX_BYTES = 2 * 1024 * 1024;

export class OpaBundles {
  readonly bundles: Cell<Bundles> = new Cell<Bundles>(new Map());
  readonly #paths: readonly string[];
  readonly #baseDir: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #seen = new Map<string, string>();
  #cancel: (() => void) | null = null;

  constructor(meshConfig: MeshConfig, options: { readonly baseDir: string; readonly clock: Clock; readonly log: Log }) {
    this.#paths = meshConfig.extensionProviders.flatMap(({ opaWasm }) => opaWasm?.bundle ?? []);
    this.#baseDir = options.baseDir;
    this.#clock = options.clock;
    this.#log = options.log;
    if (this.#paths.length > 0) {
      this.#look();
    }
  }

  #look(): void {
    const next = new Map(this.bundles.value);
    let changed = false;
    for (const path of this.#paths) {
      const bytes = this.#read(path);
      if (bytes !== null) {
        next.set(path, bytes);
        changed = true;
      }
    }
    if (changed) {
      this.bundles.set(next);
    }
    this.#cancel = this.#clock.after(EVERY_MS, () => this.#look());
  }

  /** Null where nothing is new. One that cannot be read leaves the last one in force. */
  #read(path: string): Uint8Array | null {
    const file = resolve(this.#baseDir, path);
    let version: string;
    let bytes: Uint8Array | null = null;
    try {
      const { mtimeMs, size, ino } = statSync(file);
      version = `${mtimeMs} ${size} ${ino}`;
      if (this.#seen.get(path) === version) {
        return null;
      }
      if (size > MAX_BYTES) {
        throw new Error(`longer than ${MAX_BYTES} bytes`);
      }
      bytes = readFileSync(file);
    } catch (error) {
      version = `fault ${(error as Error).message}`;
      if (this.#seen.get(path) !== version) {
        this.#log.warn("an OPA bundle cannot be read; without one what it decides is denied", { path, error });
      }
    }
    this.#seen.set(path, version);
    return bytes;
  }

  close(): void {
    this.#cancel?.();
  }
}
