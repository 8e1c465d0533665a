/** A host's private key: in OpenSSH's own form, which OpenSSL does not read, or in PEM. SPEC: OpenSSH PROTOCOL.key. */
import { createPrivateKey, type KeyObject } from "node:crypto";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { SshReader } from "./wire.ts";

const MAGIC = "openssh-key-v1\0";
const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

/** Errors: `config-invalid`, also where it is protected by a passphrase. */
export function parseHostKey(text: string, file: string): KeyObject {
  try {
    const body = /-----BEGIN OPENSSH PRIVATE KEY-----([\s\S]+?)-----END OPENSSH PRIVATE KEY-----/.exec(text)?.[1];
    return body === undefined ? createPrivateKey(text) : openSshKey(Buffer.from(body, "base64"));
  } catch (cause) {
    throw new EveryhopError("config-invalid", `\`${file}\` is no host key: ${(cause as Error).message}`, {
      hint: "it has to be a private key without a passphrase, as sshd's host keys are",
      cause,
    });
  }
}

function openSshKey(bytes: Buffer): KeyObject {
  if (bytes.toString("latin1", 0, MAGIC.length) !== MAGIC) {
    throw new Error("it does not begin as one");
  }
  const outer = new SshReader(bytes.subarray(MAGIC.length));
  const [cipher] = [outer.text(), outer.text(), outer.string()];
  if (cipher !== "none") {
    throw new Error("it has a passphrase");
  }
  if (outer.uint32() !== 1) {
    throw new Error("it holds more than one key");
  }
  outer.string();
  const inner = new SshReader(outer.string());
  const [check, again] = [inner.uint32(), inner.uint32()];
  if (check !== again) {
    throw new Error("it is damaged");
  }
  return createPrivateKey({ key: privateFields(inner.text(), inner), format: "jwk" });
}

function privateFields(type: string, reader: SshReader) {
  if (type === "ssh-ed25519") {
    const [x, both] = [reader.string(), reader.string()];
    return { kty: "OKP", crv: "Ed25519", x: base64url(x), d: base64url(both.subarray(0, 32)) };
  }
  if (type === "ssh-rsa") {
    const [n, e, d, qi, p, q] = Array.from({ length: 6 }, () => reader.mpint()) as [
      Buffer,
      Buffer,
      Buffer,
      Buffer,
      Buffer,
      Buffer,
    ];
    const [dp, dq] = [p, q].map((prime) => encode(number(d) % (number(prime) - 1n)));
    return { kty: "RSA", ...fields({ n, e, d, p, q, qi }), dp: dp as string, dq: dq as string };
  }
  const crv = { nistp256: "P-256", nistp384: "P-384", nistp521: "P-521" }[reader.text()];
  if (crv === undefined) {
    throw new Error(`keys of type \`${type.slice(0, 64)}\` are not taken`);
  }
  const [point, d] = [reader.string(), reader.mpint()];
  const size = (point.length - 1) / 2;
  const padded = Buffer.concat([Buffer.alloc(Math.max(0, size - d.length)), d]);
  return { kty: "EC", crv, ...fields({ x: point.subarray(1, 1 + size), y: point.subarray(1 + size), d: padded }) };
}

const fields = <K extends string>(bytes: Readonly<Record<K, Uint8Array>>): Record<K, string> =>
  Object.fromEntries(Object.entries(bytes).map(([name, value]) => [name, base64url(value as Uint8Array)])) as Record<
    K,
    string
  >;

const number = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString("hex") || "0"}`);

function encode(value: bigint): string {
  const hex = value.toString(16);
  return base64url(Buffer.from(hex.length % 2 === 1 ? `0${hex}` : hex, "hex"));
}
