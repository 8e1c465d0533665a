/** Where private keys are. Nothing but `SigningKey` may hold what a vault gives. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { EveryhopError } from "../../core/base/errors.ts";
import { keyIdentifier } from "../../core/x509/build.ts";
import { formatPem, parsePem } from "../../core/x509/pem.ts";
import type { KeyStore } from "../../io/keys.ts";
import type { KeyUse } from "../intent/intent.ts";
import type { KeyType } from "../intent/key-type.ts";
import { digestOfKey } from "./key-types.ts";

/** A private key that can be used and not read. */
export interface RawKey {
  readonly type: KeyType;
  readonly spki: Uint8Array;
  /** ECDSA in DER, RSA as PKCS#1 v1.5, each with the digest of its type. */
  sign(bytes: Uint8Array): Uint8Array;
}

export interface StoredKey {
  readonly use: KeyUse;
  readonly id: string;
  readonly key: RawKey;
  /** Of a CA, once adopted. */
  readonly chain: readonly Uint8Array[];
}

/** Errors of all: `storage-failed`, `permission-denied`, `unavailable`. */
export interface Vault {
  /** Whether keys survive this process. */
  readonly durable: boolean;
  load(): Promise<readonly StoredKey[]>;
  create(use: KeyUse, type: KeyType): Promise<StoredKey>;
  /** Keeps a chain with a key; replaces one that was there. */
  adopt(id: string, chain: readonly Uint8Array[]): Promise<void>;
  /** What is not there is no error. */
  discard(use: KeyUse, id: string): Promise<void>;
  close(): Promise<void>;
}

/** Random octets that name a key. */
export const MARK_BYTES = 16;

/** Of a CA its subjectKeyIdentifier, of a JWT key its mark, in hex. */
export function keyIdOf(use: KeyUse, spki: Uint8Array, mark: Uint8Array): string {
  return Buffer.from(use === "x509" ? keyIdentifier(spki) : mark).toString("hex");
}

const NAME = /^(x509|jwt)-([0-9a-f]{1,128})\.pem$/;
const fileName = (use: KeyUse, id: string): string => `${use}-${id}.pem`;

/** Keys in PEM, PKCS#8, each in a secret of its own, with its certificates after it. */
export function fileVault(store: KeyStore, durable: boolean): Vault {
  return {
    durable,
    async load() {
      const found: StoredKey[] = [];
      for (const name of await store.list()) {
        const [, use, id] = NAME.exec(name) ?? [];
        const bytes = use === undefined ? null : await store.read(name);
        if (bytes !== null) {
          found.push(storedKey(use as KeyUse, id as string, Buffer.from(bytes).toString("utf8"), name));
        }
      }
      return found;
    },
    async create(use, type) {
      const privateKey = generate(type);
      const key = rawKey(privateKey);
      const id = keyIdOf(use, key.spki, randomBytes(MARK_BYTES));
      const pem = formatPem("PRIVATE KEY", privateKey.export({ format: "der", type: "pkcs8" }));
      await store.write(fileName(use, id), Buffer.from(pem));
      return { use, id, key, chain: [] };
    },
    async adopt(id, chain) {
      const name = fileName("x509", id);
      const blocks = parsePem(Buffer.from((await store.read(name)) ?? []).toString("utf8"));
      const key = blocks.filter(({ label }) => label === "PRIVATE KEY");
      const all = [...key, ...chain.map((der) => ({ label: "CERTIFICATE", der }))];
      await store.write(name, Buffer.from(all.map(({ label, der }) => formatPem(label, der)).join("")));
    },
    discard: (use, id) => store.remove(fileName(use, id)),
    close: async () => {},
  };
}

function generate(type: KeyType): KeyObject {
  switch (type) {
    case "ec-p256":
    case "ec-p384":
      return generateKeyPairSync("ec", { namedCurve: type === "ec-p256" ? "P-256" : "P-384" }).privateKey;
    case "rsa-2048":
    case "rsa-4096":
      return generateKeyPairSync("rsa", { modulusLength: type === "rsa-2048" ? 2048 : 4096 }).privateKey;
  }
}

function rawKey(privateKey: KeyObject): RawKey {
  const type = typeOf(privateKey);
  const digest = digestOfKey(type);
  return {
    type,
    spki: createPublicKey(privateKey).export({ format: "der", type: "spki" }),
    // HOT: the key is passed bare, since options cost as much again.
    sign: (bytes) => sign(digest, bytes, privateKey),
  };
}

function typeOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): KeyType {
  const { namedCurve, modulusLength } = asymmetricKeyDetails ?? {};
  const types: Readonly<Record<string, KeyType>> = {
    "ec prime256v1": "ec-p256",
    "ec secp384r1": "ec-p384",
    "rsa 2048": "rsa-2048",
    "rsa 4096": "rsa-4096",
  };
  const type = types[`${asymmetricKeyType} ${namedCurve ?? modulusLength}`];
  if (type === undefined) {
    throw new Error(`a key of type ${asymmetricKeyType} ${namedCurve ?? modulusLength}`);
  }
  return type;
}

function storedKey(use: KeyUse, id: string, pem: string, name: string): StoredKey {
  try {
    const blocks = parsePem(pem);
    const der = blocks.find(({ label }) => label === "PRIVATE KEY")?.der;
    if (der === undefined) {
      throw new Error("the key is missing");
    }
    const key = rawKey(createPrivateKey({ key: Buffer.from(der), format: "der", type: "pkcs8" }));
    const chain = blocks.filter(({ label }) => label === "CERTIFICATE").map((block) => block.der);
    return { use, id, key, chain };
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new EveryhopError("storage-failed", `the stored key \`${name}\` cannot be used: ${why}`, {
      cause,
      hint: "restore the key folder from a backup; or remove it, and every workload joins a new trust domain authority",
    });
  }
}
