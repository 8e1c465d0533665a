/** Keys in a PKCS#11 token: made there, used there, never read out. Calls block: a token answers in microseconds. */
import { hash } from "node:crypto";
import { EveryhopError } from "../core/base/errors.ts";
import { derFromJose } from "../core/jose/ecdsa.ts";
import { DerReader, TAG } from "../core/x509/der.ts";
import { bitString, oidElement, sequence, tlv, unsignedInteger } from "../core/x509/der-write.ts";
import { type Attribute, lengthsIn, loadModule, type Module, mechanism, template, ulong } from "./pkcs11-module.ts";

export type TokenKeyType = "ec-p256" | "ec-p384" | "rsa-2048" | "rsa-4096";

/** A key pair in the token. Errors of all: `storage-failed` where the token is gone. */
export interface TokenKey {
  /** CKA_ID. */
  readonly id: Uint8Array;
  readonly type: TokenKeyType;
  readonly spki: Uint8Array;
  /** ECDSA in DER, RSA as PKCS#1 v1.5. */
  sign(bytes: Uint8Array): Uint8Array;
  destroy(): void;
}

const CKA = {
  class: 0x000,
  token: 0x001,
  private: 0x002,
  label: 0x003,
  keyType: 0x100,
  id: 0x102,
  sensitive: 0x103,
  sign: 0x108,
  verify: 0x10a,
  modulus: 0x120,
  modulusBits: 0x121,
  publicExponent: 0x122,
  extractable: 0x162,
  ecParams: 0x180,
  ecPoint: 0x181,
} as const;
const PUBLIC_KEY = 2;
const PRIVATE_KEY = 3;
const RSA = 0;
const EC = 3;
const USER = 1;
/** Serial, read and write. */
const SESSION_FLAGS = 0x6;
const ALREADY_INITIALIZED = 0x191;
const LABEL_BYTES = 32;
const TOKEN_INFO_BYTES = 256;
const MAX_OBJECTS = 1_000;
const MAX_VALUE = 1_024;

interface KeyTypeRow {
  readonly generate: number;
  readonly sign: number;
  /** What is hashed here; null: the token hashes. */
  readonly digest: string | null;
  readonly curve: Uint8Array | null;
  readonly modulusBits: number;
}

const rsa = (modulusBits: number) => ({ generate: 0x0, sign: 0x40, digest: null, curve: null, modulusBits });
const ec = (digest: string, oid: string) => ({
  ...{ generate: 0x1040, sign: 0x1041, digest, curve: oidElement(oid), modulusBits: 0 },
});
const TYPES: Readonly<Record<TokenKeyType, KeyTypeRow>> = {
  "ec-p256": ec("sha256", "1.2.840.10045.3.1.7"),
  "ec-p384": ec("sha384", "1.3.132.0.34"),
  "rsa-2048": rsa(2048),
  "rsa-4096": rsa(4096),
};
const RSA_EXPONENT = Buffer.of(1, 0, 1);

export interface TokenOptions {
  readonly module: string;
  readonly tokenLabel: string;
  /** Overwritten once it was used. */
  readonly pin: Buffer;
}

/** A session with a token, logged in. */
export class Token {
  readonly #module: Module;
  readonly #session: bigint;

  private constructor(module: Module, session: bigint) {
    this.#module = module;
    this.#session = session;
  }

  /** Errors: `file-missing` (library, token), `permission-denied` (PIN), `storage-failed`. */
  static open({ module: path, tokenLabel, pin }: TokenOptions): Token {
    const module = loadModule(path);
    module.call("initialize", [null], [ALREADY_INITIALIZED]);
    const slot = findSlot(module, tokenLabel);
    const handle = Buffer.alloc(8);
    module.call("openSession", [slot, SESSION_FLAGS, null, null, handle]);
    const session = handle.readBigUInt64LE();
    try {
      module.call("login", [session, USER, pin, pin.length]);
    } finally {
      pin.fill(0);
    }
    return new Token(module, session);
  }

  /** A new pair, which cannot leave the token. */
  generate(label: string, id: Uint8Array, type: TokenKeyType): TokenKey {
    const { generate, curve, modulusBits } = TYPES[type];
    const named: readonly Attribute[] = [yes(CKA.token), [CKA.label, Buffer.from(label)], [CKA.id, Buffer.from(id)]];
    const kind: readonly Attribute[] =
      curve === null
        ? [
            [CKA.modulusBits, ulong(modulusBits)],
            [CKA.publicExponent, RSA_EXPONENT],
          ]
        : [[CKA.ecParams, Buffer.from(curve)]];
    const ofPublic: readonly Attribute[] = [...named, yes(CKA.verify), ...kind];
    const kept: readonly Attribute[] = [yes(CKA.private), yes(CKA.sensitive), no(CKA.extractable)];
    const ofPrivate: readonly Attribute[] = [...named, ...kept, yes(CKA.sign)];
    const [publicKey, privateKey] = [Buffer.alloc(8), Buffer.alloc(8)];
    const templates = [template(ofPublic), ofPublic.length, template(ofPrivate), ofPrivate.length] as const;
    this.#module.call("generate", [this.#session, mechanism(generate), ...templates, publicKey, privateKey]);
    return this.#key(publicKey.readBigUInt64LE(), privateKey.readBigUInt64LE());
  }

  /** The pairs of this label. */
  find(label: string): TokenKey[] {
    return this.#objects([
      [CKA.class, ulong(PRIVATE_KEY)],
      [CKA.label, Buffer.from(label)],
    ]).map((privateKey) => {
      const [id = Buffer.alloc(0)] = this.#values(privateKey, [CKA.id]);
      const wanted: readonly Attribute[] = [
        [CKA.class, ulong(PUBLIC_KEY)],
        [CKA.label, Buffer.from(label)],
        [CKA.id, id],
      ];
      const [publicKey] = this.#objects(wanted);
      if (publicKey === undefined) {
        throw new EveryhopError("storage-failed", `the token has no public half of the key \`${id.toString("hex")}\``, {
          hint: "restore the token from its backup",
        });
      }
      return this.#key(publicKey, privateKey);
    });
  }

  close(): void {
    this.#module.call("closeSession", [this.#session]);
  }

  #key(publicKey: bigint, privateKey: bigint): TokenKey {
    const [id, keyType] = this.#values(publicKey, [CKA.id, CKA.keyType]) as [Buffer, Buffer];
    const { type, spki } = this.#public(publicKey, Number(keyType.readBigUInt64LE()));
    return {
      id,
      type,
      spki,
      sign: (bytes) => this.#sign(privateKey, type, bytes),
      destroy: () => {
        this.#module.call("destroy", [this.#session, privateKey]);
        this.#module.call("destroy", [this.#session, publicKey]);
      },
    };
  }

  #public(object: bigint, keyType: number): { readonly type: TokenKeyType; readonly spki: Uint8Array } {
    if (keyType === EC) {
      const [curve, wrapped] = this.#values(object, [CKA.ecParams, CKA.ecPoint]) as [Buffer, Buffer];
      const type = (["ec-p256", "ec-p384"] as const).find((name) => curve.equals(TYPES[name].curve ?? Buffer.alloc(0)));
      if (type !== undefined) {
        // SPEC: PKCS#11 2.40 §2.3.3: the point is the DER of an octet string.
        const point = new DerReader(wrapped).content(TAG.octetString);
        return { type, spki: sequence(sequence(oidElement("1.2.840.10045.2.1"), curve), bitString(point)) };
      }
    }
    if (keyType === RSA) {
      const [modulus, exponent] = this.#values(object, [CKA.modulus, CKA.publicExponent]) as [Buffer, Buffer];
      const type = (["rsa-2048", "rsa-4096"] as const).find((name) => TYPES[name].modulusBits === modulus.length * 8);
      if (type !== undefined) {
        const key = sequence(unsignedInteger(modulus), unsignedInteger(exponent));
        return { type, spki: sequence(sequence(oidElement("1.2.840.113549.1.1.1"), tlv(TAG.null)), bitString(key)) };
      }
    }
    throw new EveryhopError("storage-failed", "the token holds a key of ours of a type that is not ours");
  }

  #sign(key: bigint, type: TokenKeyType, bytes: Uint8Array): Uint8Array {
    const { sign, digest } = TYPES[type];
    const input = digest === null ? Buffer.from(bytes) : hash(digest, bytes, "buffer");
    this.#module.call("signInit", [this.#session, mechanism(sign), key]);
    const [signature, length] = [Buffer.alloc(MAX_VALUE), ulong(MAX_VALUE)];
    this.#module.call("sign", [this.#session, input, input.length, signature, length]);
    const signed = signature.subarray(0, Number(length.readBigUInt64LE()));
    return digest === null ? signed : derFromJose(signed);
  }

  #objects(wanted: readonly Attribute[]): bigint[] {
    this.#module.call("findInit", [this.#session, template(wanted), wanted.length]);
    const [handles, count] = [Buffer.alloc(8 * MAX_OBJECTS), Buffer.alloc(8)];
    try {
      this.#module.call("find", [this.#session, handles, MAX_OBJECTS, count]);
    } finally {
      this.#module.call("findFinal", [this.#session]);
    }
    return Array.from({ length: Number(count.readBigUInt64LE()) }, (_, index) => handles.readBigUInt64LE(8 * index));
  }

  #values(object: bigint, types: readonly number[]): Buffer[] {
    const room = types.map((type): Attribute => [type, Buffer.alloc(MAX_VALUE)]);
    const filled = template(room);
    this.#module.call("attributes", [this.#session, object, filled, types.length]);
    const lengths = lengthsIn(filled);
    return room.map(([, value], index) => value.subarray(0, Number(lengths[index])));
  }
}

const yes = (type: number): Attribute => [type, Buffer.of(1)];
const no = (type: number): Attribute => [type, Buffer.of(0)];

/** Errors: `file-missing` where no token, or more than one, has the label. */
function findSlot(module: Module, label: string): bigint {
  const count = Buffer.alloc(8);
  module.call("slots", [1, null, count]);
  const slots = Buffer.alloc(8 * Math.max(1, Number(count.readBigUInt64LE())));
  module.call("slots", [1, slots, count]);
  const labels = Array.from({ length: Number(count.readBigUInt64LE()) }, (_, index) => {
    const [slot, info] = [slots.readBigUInt64LE(8 * index), Buffer.alloc(TOKEN_INFO_BYTES)];
    module.call("tokenInfo", [slot, info]);
    // Padded with blanks.
    return { slot, label: info.toString("utf8", 0, LABEL_BYTES).trimEnd() };
  });
  const found = labels.filter((token) => token.label === label);
  const [only] = found;
  if (only === undefined || found.length > 1) {
    const there = labels.map((token) => `\`${token.label}\``).join(", ");
    throw new EveryhopError(
      "file-missing",
      `${found.length === 0 ? "no" : "more than one"} token has the label \`${label}\``,
      {
        hint: `\`keyManager.tokenLabel\` names it; the library shows: ${there === "" ? "none" : there}`,
      },
    );
  }
  return only.slot;
}
