/** Byte classes of HTTP/1.1, as lookup tables. SPEC: RFC 9110 §5.6.2 (tchar), §5.5 (field-value); RFC 9112 §3. */

export const CR = 13;
export const LF = 10;
export const SP = 32;
export const HTAB = 9;
export const COLON = 58;

function table(accept: (byte: number) => boolean): Uint8Array {
  const result = new Uint8Array(256);
  for (let byte = 0; byte < 256; byte++) {
    result[byte] = accept(byte) ? 1 : 0;
  }
  return result;
}

const TOKEN_MARKS = new Set([..."!#$%&'*+-.^_`|~"].map((mark) => mark.charCodeAt(0)));
const isAlphanumeric = (byte: number): boolean => /[0-9A-Za-z]/.test(String.fromCharCode(byte));

/** Bytes of a method or a field name. */
export const TOKEN: Uint8Array = table((byte) => isAlphanumeric(byte) || TOKEN_MARKS.has(byte));

/** Bytes of a field value: visible, obs-text, space and tab. No NUL, no control, no CR or LF. */
export const VALUE: Uint8Array = table((byte) => byte === HTAB || (byte >= SP && byte !== 0x7f));

/** Bytes of a request target: visible ASCII. Raw bytes above 0x7f are refused, as Envoy does. */
export const TARGET: Uint8Array = table((byte) => byte > SP && byte < 0x7f);

/** Bytes of `Host`: a registered name, an IP literal, a port. No user information, no path. SPEC: RFC 3986 §3.2.2. */
export const HOST: Uint8Array = table(
  (byte) => isAlphanumeric(byte) || "-._~%!$&'()*+,;=:[]".includes(String.fromCharCode(byte)),
);

/** Whether the bytes at `at` spell `lower` (lower-case ASCII), whatever their case. The caller knows that they are tokens. */
export function spells(bytes: Uint8Array, at: number, lower: string): boolean {
  for (let i = 0; i < lower.length; i++) {
    if ((bytes[at + i]! | 0x20) !== lower.charCodeAt(i)) {
      return false;
    }
  }
  return true;
}

/** As `spells`, and `_` counts as `-`: what a service behind CGI or WSGI would read as the same name. */
export function spellsLoosely(bytes: Uint8Array, at: number, lower: string): boolean {
  for (let i = 0; i < lower.length; i++) {
    const byte = bytes[at + i]!;
    if ((byte === 0x5f ? 0x2d : byte | 0x20) !== lower.charCodeAt(i)) {
      return false;
    }
  }
  return true;
}

/** The decimal number in `bytes[from, to)`, or -1 where it is none or has more than 15 digits. SPEC: RFC 9110 §8.6. */
export function decimal(bytes: Uint8Array, from: number, to: number): number {
  if (to === from || to - from > 15) {
    return -1;
  }
  let value = 0;
  for (let at = from; at < to; at++) {
    const digit = bytes[at]! - 48;
    if (digit < 0 || digit > 9) {
      return -1;
    }
    value = value * 10 + digit;
  }
  return value;
}

/** HOT: bytes as a string, one character each. */
export function text(bytes: Buffer, from: number, to: number): string {
  return bytes.toString("latin1", from, to);
}
