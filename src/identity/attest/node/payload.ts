/** The JSON that attestors exchange, as Go writes it: bytes are base64, a missing field is its zero. */
import { EveryhopError } from "../../../core/base/errors.ts";

/** An honest one has a few kB: five certificates, or a token. */
const MAX_PAYLOAD_BYTES = 128 * 1024;

export type Payload = Readonly<Record<string, unknown>>;

/** Errors: `invalid-argument`. */
export function readPayload(bytes: Uint8Array, what: string): Payload {
  if (bytes.length === 0) {
    throw new EveryhopError("invalid-argument", `missing ${what}`);
  }
  if (bytes.length > MAX_PAYLOAD_BYTES) {
    throw new EveryhopError("invalid-argument", `the ${what} is larger than ${MAX_PAYLOAD_BYTES} bytes`);
  }
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Payload;
    }
  } catch {
    // Said below; what stood in it may be a secret.
  }
  throw new EveryhopError("invalid-argument", `the ${what} is malformed`);
}

export function textField(payload: Payload, name: string): string {
  const value = Object.hasOwn(payload, name) ? payload[name] : undefined;
  if (typeof value !== "string" || value === "") {
    throw new EveryhopError("invalid-argument", `missing \`${name}\` in attestation data`);
  }
  return value;
}

export function objectField(payload: Payload, name: string): Payload {
  const value = Object.hasOwn(payload, name) ? payload[name] : undefined;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new EveryhopError("invalid-argument", `missing \`${name}\` in attestation data`);
  }
  return value as Payload;
}

export function bytesField(payload: Payload, name: string): Uint8Array {
  return decodeBytes(textField(payload, name), name);
}

/** SPEC: Go's encoding/json: standard base64 with padding. */
export function decodeBytes(text: unknown, name: string): Uint8Array {
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0) {
    throw new EveryhopError("invalid-argument", `\`${name}\` is not base64`);
  }
  return Buffer.from(text, "base64");
}

export function writePayload(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

export function encodeBytes(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

/** Nonces of both sides. SPEC: SPIRE, x509pop and sshpop. */
export const NONCE_BYTES = 32;

/** The two nonces, joined; what is signed is made of them, so that neither side chooses it alone. */
export function joinNonces(challenge: Uint8Array, response: Uint8Array): Uint8Array {
  if (challenge.length !== NONCE_BYTES || response.length !== NONCE_BYTES) {
    throw new EveryhopError("invalid-argument", "invalid nonce");
  }
  return Buffer.concat([challenge, response]);
}
