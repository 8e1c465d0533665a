/** OpenSSH host certificates. SPEC: OpenSSH PROTOCOL.certkeys. */
import { EveryhopError } from "../../../../core/base/errors.ts";
import {
  readKeyFields,
  readPublicKey,
  type SshPublicKey,
  SshReader,
  type SshSignature,
  sshError,
  verifySsh,
} from "./wire.ts";

export interface SshCertificate {
  /** The whole, as it was sent. */
  readonly bytes: Uint8Array;
  readonly key: SshPublicKey;
  readonly kind: "user" | "host";
  readonly serial: bigint;
  readonly keyId: string;
  readonly principals: readonly string[];
  readonly validAfter: bigint;
  readonly validBefore: bigint;
  readonly criticalOptions: readonly string[];
  readonly signatureKey: Uint8Array;
  readonly signed: Uint8Array;
  readonly signature: SshSignature;
}

const SUFFIX = "-cert-v01@openssh.com";
const MAX_NAMES = 256;

/** Parses a certificate; nothing is verified. Errors: `invalid-argument`. */
export function parseSshCertificate(bytes: Uint8Array): SshCertificate {
  const reader = new SshReader(bytes);
  const type = reader.text();
  if (!type.endsWith(SUFFIX)) {
    throw sshError("it is no certificate");
  }
  const plain = type.slice(0, -SUFFIX.length);
  reader.string();
  const key = { type: plain, key: readKeyFields(plain, reader) };
  const serial = reader.uint64();
  const role = reader.uint32();
  const keyId = reader.text();
  const principals = list(reader.string());
  const [validAfter, validBefore] = [reader.uint64(), reader.uint64()];
  const criticalOptions = list(reader.string()).filter((_, index) => index % 2 === 0);
  reader.string();
  reader.string();
  const signatureKey = reader.string();
  const signed = reader.bytes.subarray(0, reader.at);
  const signature = readSignature(reader.string());
  if (!reader.ended || (role !== 1 && role !== 2)) {
    throw sshError(reader.ended ? "its type is neither user nor host" : "bytes after its end");
  }
  const kind = role === 2 ? "host" : "user";
  return {
    ...{ bytes, key, kind, serial, keyId, principals, validAfter, validBefore },
    ...{ criticalOptions, signatureKey, signed, signature },
  };
}

function list(bytes: Uint8Array): string[] {
  const reader = new SshReader(bytes);
  const items: string[] = [];
  while (!reader.ended) {
    items.push(reader.text());
    if (items.length > MAX_NAMES) {
      throw sshError("too many names");
    }
  }
  return items;
}

function readSignature(bytes: Uint8Array): SshSignature {
  const reader = new SshReader(bytes);
  const signature = { format: reader.text(), blob: reader.string() };
  if (!reader.ended) {
    throw sshError("bytes after its signature");
  }
  return signature;
}

/** The base64 in a line of authorized_keys or of a `.pub` file. Errors: `config-invalid`. */
export function blobOfLine(line: string): Uint8Array {
  const base64 = /(?:^|\s)((?:ssh|ecdsa)-\S+)\s+([A-Za-z0-9+/]+={0,2})(?:\s|$)/.exec(line.trim())?.[2];
  if (base64 === undefined) {
    throw new EveryhopError("config-invalid", `\`${line.trim().slice(0, 64)}\` is no public key`, {
      hint: "write it as in authorized_keys: `ssh-ed25519 AAAA…`",
    });
  }
  return Buffer.from(base64, "base64");
}

/**
 * The host that a certificate names, where one of `authorities` (wire form) says so now. Errors: `permission-denied`.
 * SPEC: golang.org/x/crypto/ssh CertChecker.CheckHostKey, as SPIRE uses it.
 */
export function checkHostCertificate(
  certificate: SshCertificate,
  authorities: readonly Uint8Array[],
  nowMs: number,
): string {
  const refuse = (why: string): never => {
    throw new EveryhopError("permission-denied", `failed to check host key: ${why}`);
  };
  const [host = refuse("cert has no valid principals")] = certificate.principals;
  if (certificate.kind !== "host") {
    refuse("the certificate is a user's, not a host's");
  }
  if (!authorities.some((authority) => Buffer.compare(authority, certificate.signatureKey) === 0)) {
    refuse("no authority that is trusted signed the certificate");
  }
  if (certificate.criticalOptions.length > 0) {
    refuse(`unsupported critical option \`${certificate.criticalOptions[0]?.slice(0, 64)}\``);
  }
  const now = BigInt(Math.floor(nowMs / 1_000));
  if (now < certificate.validAfter) {
    refuse("cert is not yet valid");
  }
  if (now >= certificate.validBefore) {
    refuse("cert has expired");
  }
  if (!verifySsh(readPublicKey(certificate.signatureKey), certificate.signed, certificate.signature)) {
    refuse("certificate signature does not verify");
  }
  return host;
}
