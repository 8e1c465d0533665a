/** SSH's binary forms. SPEC: RFC 4251 §5; OpenSSH PROTOCOL.certkeys. */
import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { EveryhopError } from "../../../../core/base/errors.ts";

/** No honest field comes near it: a certificate has 1 to 3 kB. */
const MAX_BYTES = 32_768;

export function sshError(what: string): EveryhopError {
  return new EveryhopError("invalid-argument", `the SSH certificate is malformed: ${what}`);
}

/** Reads fields one after another, each within bounds. */
export class SshReader {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Uint8Array) {
    if (bytes.length > MAX_BYTES) {
      throw sshError(`it has ${bytes.length} bytes`);
    }
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get ended(): boolean {
    return this.at === this.bytes.length;
  }

  #take(count: number): Buffer {
    if (count > this.bytes.length - this.at) {
      throw sshError("a field ends after the end");
    }
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  uint32(): number {
    return this.#take(4).readUInt32BE();
  }

  uint64(): bigint {
    return this.#take(8).readBigUInt64BE();
  }

  string(): Buffer {
    return this.#take(this.uint32());
  }

  text(): string {
    return this.string().toString("latin1");
  }

  /** A positive integer, without leading zeros. */
  mpint(): Buffer {
    const value = this.string();
    if (((value[0] ?? 0) & 0x80) !== 0) {
      throw sshError("a negative number");
    }
    const first = value.findIndex((octet) => octet !== 0);
    return value.subarray(first < 0 ? value.length : first);
  }
}

export interface SshPublicKey {
  /** `ssh-rsa`, `ecdsa-sha2-nistp256`, `ssh-ed25519` … */
  readonly type: string;
  readonly key: KeyObject;
}

const CURVES: Readonly<Record<string, { readonly crv: string; readonly bytes: number }>> = {
  nistp256: { crv: "P-256", bytes: 32 },
  nistp384: { crv: "P-384", bytes: 48 },
  nistp521: { crv: "P-521", bytes: 66 },
};

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

/** A public key's fields, after its type. Errors: `invalid-argument` for a type or a strength that is not taken. */
export function readKeyFields(type: string, reader: SshReader): KeyObject {
  try {
    return createPublicKey({ key: keyFields(type, reader), format: "jwk" });
  } catch (cause) {
    throw cause instanceof EveryhopError ? cause : sshError("its key is not usable");
  }
}

function keyFields(type: string, reader: SshReader) {
  if (type === "ssh-rsa") {
    const [e, n] = [reader.mpint(), reader.mpint()];
    if (n.length < 256 || n.length > 1_024) {
      throw sshError(`an RSA key has ${n.length * 8} bits; 2048 to 8192 are allowed`);
    }
    return { kty: "RSA", e: base64url(e), n: base64url(n) };
  }
  if (type === "ssh-ed25519") {
    return { kty: "OKP", crv: "Ed25519", x: base64url(reader.string()) };
  }
  const name = /^ecdsa-sha2-(nistp\d+)$/.exec(type)?.[1] ?? "";
  const curve = Object.hasOwn(CURVES, name) ? CURVES[name] : undefined;
  if (curve === undefined) {
    throw sshError(`keys of type \`${type.slice(0, 64)}\` are not taken`);
  }
  if (reader.text() !== name) {
    throw sshError("its curve is not that of its type");
  }
  const point = reader.string();
  if (point.length !== 1 + 2 * curve.bytes || point[0] !== 4) {
    throw sshError("its point is not an uncompressed one");
  }
  const [x, y] = [point.subarray(1, 1 + curve.bytes), point.subarray(1 + curve.bytes)];
  return { kty: "EC", crv: curve.crv, x: base64url(x), y: base64url(y) };
}

export function readPublicKey(bytes: Uint8Array): SshPublicKey {
  const reader = new SshReader(bytes);
  const type = reader.text();
  const key = readKeyFields(type, reader);
  if (!reader.ended) {
    throw sshError("bytes after its key");
  }
  return { type, key };
}

const DIGESTS: Readonly<Record<string, string>> = {
  "ssh-rsa": "sha1",
  "rsa-sha2-256": "sha256",
  "rsa-sha2-512": "sha512",
  "ecdsa-sha2-nistp256": "sha256",
  "ecdsa-sha2-nistp384": "sha384",
  "ecdsa-sha2-nistp521": "sha512",
};

export interface SshSignature {
  readonly format: string;
  readonly blob: Uint8Array;
}

/**
 * Whether `key` signed `message`. SHA-1 (`ssh-rsa`) is for those who say so: Go's RSA signers use it by default, and a proof
 * of possession over fresh nonces does not rest on collisions; a certificate would.
 */
export function verifySsh(
  { type, key }: SshPublicKey,
  message: Uint8Array,
  { format, blob }: SshSignature,
  { sha1 = false } = {},
): boolean {
  const fits = type === "ssh-rsa" ? /^(rsa-sha2-(256|512)|ssh-rsa)$/.test(format) : format === type;
  if (!fits || (format === "ssh-rsa" && !sha1)) {
    return false;
  }
  if (type === "ssh-ed25519") {
    return verify(null, message, key, blob);
  }
  const digest = DIGESTS[format] ?? "";
  return type === "ssh-rsa"
    ? verify(digest, message, key, blob)
    : verify(digest, message, { key, dsaEncoding: "ieee-p1363" }, fixedWidth(type, blob));
}

/** SPEC: RFC 5656 §3.1.2: r and s as mpints. */
function fixedWidth(type: string, blob: Uint8Array): Buffer {
  const reader = new SshReader(blob);
  const [r, s] = [reader.mpint(), reader.mpint()];
  const size = CURVES[type.slice("ecdsa-sha2-".length)]?.bytes ?? 0;
  if (!reader.ended || r.length > size || s.length > size) {
    throw sshError("its signature has another length");
  }
  return Buffer.concat([Buffer.alloc(size - r.length), r, Buffer.alloc(size - s.length), s]);
}

/** `string`: the length, then the bytes. */
export function sshString(bytes: Uint8Array | string): Buffer {
  const body = typeof bytes === "string" ? Buffer.from(bytes, "latin1") : Buffer.from(bytes);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

/** An unsigned number as mpint. */
export function sshNumber(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((octet) => octet !== 0);
  const body = first < 0 ? new Uint8Array() : bytes.subarray(first);
  return sshString(((body[0] ?? 0) & 0x80) === 0 ? body : Buffer.concat([Buffer.of(0), body]));
}
