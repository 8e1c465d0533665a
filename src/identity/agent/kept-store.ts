/** Where the agent keeps its secrets between runs: sealed files, and elsewhere the key they are sealed with. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import { diskKeyStore, type KeyStore, memoryKeyStore } from "../../io/keys.ts";
import type { Log } from "../../io/log.ts";
import { loadSealingKey, makeSealer, sealedKeyStore } from "../../io/seal.ts";

export interface KeptStoreOptions {
  readonly trustDomain: TrustDomain;
  readonly dataDir: string;
  /** `memory`: nothing reaches the disk, and a restart begins anew. */
  readonly cache: "disk" | "memory";
  /** Where the key is that the rest is sealed with: not in `dataDir`. */
  readonly cacheKeyFile: string;
  readonly log: Log;
}

export interface KeptStore {
  /** The agent's own SVID and whom it trusts. */
  readonly own: KeyStore;
  /** What it hands out; larger. */
  readonly identities: KeyStore;
  readonly generation: Generation;
}

/** The number of the newest document, beside the key: it is not put back together with the documents. */
export interface Generation {
  read(): Promise<number>;
  write(generation: number): Promise<void>;
}

const MAX_KEPT_BYTES = 128 * 1024 * 1024;

/** Errors: `storage-failed`, `permission-denied`. */
export async function openKeptStore(options: KeptStoreOptions): Promise<KeptStore> {
  const { trustDomain, dataDir, cache, cacheKeyFile, log } = options;
  if (cache === "memory") {
    const generation = { read: async () => 0, write: async () => {} };
    return { own: memoryKeyStore(), identities: memoryKeyStore(), generation };
  }
  const sealer = makeSealer(await loadSealingKey(cacheKeyFile));
  const unreadable = (name: string) =>
    log.error("what was kept of an earlier run is discarded: it is damaged, was changed, or is of another key", {
      name,
      dataDir,
      cacheKeyFile,
    });
  const sealed = (store: KeyStore) => sealedKeyStore(store, sealer, `agent of ${trustDomain}`, unreadable);
  return {
    own: sealed(await diskKeyStore(join(dataDir, "keys"))),
    identities: sealed(await diskKeyStore(join(dataDir, "identities"), MAX_KEPT_BYTES)),
    generation: fileGeneration(`${cacheKeyFile}.generation`, log),
  };
}

const DIGITS = 16;

/** A number in a file, written in place: sixteen digits are one sector. */
function fileGeneration(path: string, log: Log): Generation {
  let broken = false;
  return {
    async read() {
      const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => null);
      try {
        const number = Number(await file?.readFile("utf8"));
        return Number.isSafeInteger(number) ? number : 0;
      } finally {
        await file?.close();
      }
    },
    async write(generation) {
      try {
        const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
        try {
          await file.write(String(generation).padStart(DIGITS, "0"), 0);
          await file.sync();
        } finally {
          await file.close();
        }
      } catch (error) {
        if (!broken) {
          broken = true;
          log.warn("cannot write beside `cacheKeyFile`: older copies of what is kept would not be noticed", {
            path,
            error,
          });
        }
      }
    },
  };
}
