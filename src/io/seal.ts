/** Secrets at rest under a key that lies elsewhere: who gets the folder (a backup, a disk) has nothing of it. */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { EveryhopError } from "../core/base/errors.ts";
import { type KeyStore, readSecretFile, writeSecretFile } from "./keys.ts";

/** AES-256-GCM. `context` says what the bytes are and whose: opened with another, they are refused. */
export interface Sealer {
  seal(bytes: Uint8Array, context: string): Uint8Array;
  /** Null where they were not sealed with this key in this context, or are not what they were. */
  open(sealed: Uint8Array, context: string): Uint8Array | null;
}

const KEY_BYTES = 32;
const MAGIC = Buffer.from("EHS1");
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = MAGIC.length + NONCE_BYTES + TAG_BYTES;

export function makeSealer(key: Uint8Array): Sealer {
  if (key.length !== KEY_BYTES) {
    throw new EveryhopError("internal", `a sealing key of ${key.length} bytes`);
  }
  const additional = (context: string) => Buffer.concat([MAGIC, Buffer.from(context)]);
  return {
    seal(bytes, context) {
      // Random nonces are good for 2^32 messages under one key: one a second for a century.
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(additional(context));
      const body = Buffer.concat([cipher.update(bytes), cipher.final()]);
      return Buffer.concat([MAGIC, nonce, cipher.getAuthTag(), body]);
    },
    open(sealed, context) {
      if (sealed.length < HEAD_BYTES || !MAGIC.equals(sealed.subarray(0, MAGIC.length))) {
        return null;
      }
      const nonce = sealed.subarray(MAGIC.length, MAGIC.length + NONCE_BYTES);
      const tag = sealed.subarray(HEAD_BYTES - TAG_BYTES, HEAD_BYTES);
      try {
        const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
        decipher.setAAD(additional(context)).setAuthTag(tag);
        return Buffer.concat([decipher.update(sealed.subarray(HEAD_BYTES)), decipher.final()]);
      } catch {
        return null;
      }
    },
  };
}

/** The key in `file`, made where there is none. Errors: `storage-failed`, `permission-denied`. */
export async function loadSealingKey(file: string): Promise<Uint8Array> {
  const known = await readSecretFile(file);
  if (known !== null) {
    if (known.length !== KEY_BYTES) {
      throw new EveryhopError("storage-failed", `\`${file}\` holds ${known.length} bytes, not a key of ${KEY_BYTES}`, {
        hint: "remove it, and a new one is made; what was sealed with it is lost",
      });
    }
    return known;
  }
  const key = randomBytes(KEY_BYTES);
  await mkdir(dirname(file), { recursive: true, mode: 0o700 }).catch((error) => {
    throw new EveryhopError("storage-failed", `cannot make the folder of \`${file}\`: ${(error as Error).message}`, {
      hint: "`cacheKeyFile` has to be in a folder that this user may make or write to, apart from `dataDir`",
      cause: error,
    });
  });
  await writeSecretFile(file, key);
  return key;
}

/** A key store whose secrets are sealed. What does not open is told to `onUnreadable`, and is as if it were not there. */
export function sealedKeyStore(
  inner: KeyStore,
  sealer: Sealer,
  context: string,
  onUnreadable: (name: string) => void,
): KeyStore {
  const of = (name: string) => `${context}\n${name}`;
  return {
    ...inner,
    async read(name) {
      const sealed = await inner.read(name);
      const opened = sealed === null ? null : sealer.open(sealed, of(name));
      if (sealed !== null && opened === null) {
        onUnreadable(name);
      }
      return opened;
    },
    write: (name, bytes) => inner.write(name, sealer.seal(bytes, of(name))),
  };
}
