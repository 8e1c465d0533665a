import { EveryhopError } from "../core/base/errors.ts";

/** More certificates than this in one field are not believed. */
const MAX_CERTIFICATES = 1_000;

/** Splits concatenated DER certificates. What is inside each is not looked at. Errors: `invalid-argument`. */
export function splitDer(bytes: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let at = 0;
  while (at < bytes.length) {
    const end = at + sequenceLength(bytes, at);
    if (end > bytes.length || parts.length === MAX_CERTIFICATES) {
      throw malformed();
    }
    parts.push(bytes.slice(at, end));
    at = end;
  }
  return parts;
}

/** Octets of the SEQUENCE at `at`, its header included. SPEC: X.690 §8.1.3, definite form alone. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at + 1] ?? 0x80;
  if (bytes[at] !== 0x30) {
    throw malformed();
  }
  if (first < 0x80) {
    return 2 + first;
  }
  const octets = first & 0x7f;
  if (octets === 0 || octets > 3) {
    throw malformed();
  }
  let length = 0;
  for (let index = 0; index < octets; index++) {
    length = length * 256 + (bytes[at + 2 + index] ?? 0);
  }
  return 2 + octets + length;
}

function malformed(): EveryhopError {
  return new EveryhopError("invalid-argument", "not a list of DER certificates");
}
