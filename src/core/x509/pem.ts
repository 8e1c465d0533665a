import { EveryhopError } from "../base/errors.ts";

export interface PemBlock {
  /** What stands between `-----BEGIN ` and `-----`. */
  readonly label: string;
  readonly der: Uint8Array;
}

const MAX_PEM_BYTES = 16 * 1024 * 1024;

function pemError(what: string): EveryhopError {
  return new EveryhopError("invalid-argument", `malformed PEM: ${what}`);
}

/**
 * All blocks of a PEM text, in order. Text between blocks is skipped, headers inside a block are not allowed, and the base64
 * must be whole. Errors: `invalid-argument`. SPEC: RFC 7468.
 */
export function parsePem(text: string): PemBlock[] {
  if (text.length > MAX_PEM_BYTES) {
    throw pemError("too large");
  }
  const blocks: PemBlock[] = [];
  let label: string | null = null;
  let body = "";
  for (const raw of text.split("\n")) {
    const line = raw.trim();
    if (label === null) {
      label = /^-----BEGIN ([A-Z0-9 ]{1,64})-----$/.exec(line)?.[1] ?? null;
      body = "";
    } else if (line.startsWith("-----")) {
      if (line !== `-----END ${label}-----`) {
        throw pemError(`a block \`${label}\` does not end`);
      }
      blocks.push({ label, der: decodeBase64(body) });
      label = null;
    } else {
      body += line;
    }
  }
  if (label !== null) {
    throw pemError(`a block \`${label}\` does not end`);
  }
  return blocks;
}

function decodeBase64(text: string): Uint8Array {
  const bytes = Buffer.from(text, "base64");
  if (bytes.length === 0 || bytes.toString("base64") !== text) {
    throw pemError("not base64");
  }
  return bytes;
}

/** The certificates of a PEM text. Errors: `invalid-argument` where there is none. */
export function certificatesFromPem(text: string): Uint8Array[] {
  const certificates = parsePem(text)
    .filter((block) => block.label === "CERTIFICATE")
    .map((block) => block.der);
  if (certificates.length === 0) {
    throw pemError("no certificate in it");
  }
  return certificates;
}

/** One block, lines of 64 characters, with a newline at the end. */
export function formatPem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.length).toString("base64");
  return `-----BEGIN ${label}-----\n${base64.replace(/.{1,64}/g, "$&\n")}-----END ${label}-----\n`;
}

export function certificatesToPem(certificates: readonly Uint8Array[]): string {
  return certificates.map((der) => formatPem("CERTIFICATE", der)).join("");
}
