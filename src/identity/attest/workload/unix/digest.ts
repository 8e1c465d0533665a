import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { type FileIdentity, identityOfStats, sameFile } from "../../../../io/process.ts";

export interface FileDigests {
  /** SHA-256 (hex) of the file `path` names, where it is the one of `identity`; null where it is not, or too large. */
  digest(path: string, identity: FileIdentity): Promise<string | null>;
}

const MAX_FILE_BYTES = 1n << 30n;
const MAX_REMEMBERED = 1_000;
const CHUNK_BYTES = 1 << 20;
/** A file changed this recently could change again within one tick of its file system's clock: its digest is not kept. */
const SETTLED_MS = 2_000;

/**
 * Digests of files, remembered by identity (device, inode, size and both times); `now` in ms. Files larger than `limit` bytes have
 * none: 0 leaves it at 1 GiB, negative means no file at all.
 */
export function makeFileDigests(now: () => number, limit = 0): FileDigests {
  const maxBytes = limit > 0 && BigInt(limit) < MAX_FILE_BYTES ? BigInt(limit) : MAX_FILE_BYTES;
  const remembered = new Map<string, string>();
  const running = new Map<string, Promise<string | null>>();
  async function hash(path: string, identity: FileIdentity, key: string): Promise<string | null> {
    const digest = await hashFile(path, identity);
    if (digest !== null && Number(identity.changedNs / 1_000_000n) < now() - SETTLED_MS) {
      remembered.set(key, digest);
      if (remembered.size > MAX_REMEMBERED) {
        remembered.delete(remembered.keys().next().value as string);
      }
    }
    return digest;
  }
  return {
    digest(path, identity) {
      const { device, inode, size, modifiedNs, changedNs } = identity;
      if (limit < 0 || size > maxBytes) {
        return Promise.resolve(null);
      }
      const key = `${device}:${inode}:${size}:${modifiedNs}:${changedNs}`;
      const known = remembered.get(key);
      if (known !== undefined) {
        return Promise.resolve(known);
      }
      const started = running.get(key) ?? hash(path, identity, key).finally(() => running.delete(key));
      running.set(key, started);
      return started;
    },
  };
}

async function hashFile(path: string, identity: FileIdentity): Promise<string | null> {
  const file = await open(path).catch(() => null);
  if (file === null) {
    return null;
  }
  try {
    const unchanged = async () => sameFile(identityOfStats(await file.stat({ bigint: true })), identity);
    if (!(await unchanged())) {
      return null;
    }
    const hash = createHash("sha256");
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    let left = Number(identity.size);
    while (left > 0) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, left), null);
      if (bytesRead === 0) {
        return null;
      }
      hash.update(chunk.subarray(0, bytesRead));
      left -= bytesRead;
    }
    return (await unchanged()) ? hash.digest("hex") : null;
  } finally {
    await file.close();
  }
}
