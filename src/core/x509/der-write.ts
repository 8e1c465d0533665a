import { memo } from "../base/memo.ts";
import { TAG } from "./der.ts";

/** One element: `tag`, the length, the parts one after the other. HOT: one allocation per element. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) {
    length += part.length;
  }
  const header = length < 0x80 ? 2 : length < 0x100 ? 3 : length < 0x10000 ? 4 : 5;
  const out = Buffer.allocUnsafe(header + length);
  out[0] = tag;
  if (header === 2) {
    out[1] = length;
  } else {
    out[1] = 0x80 | (header - 2);
    out.writeUIntBE(length, 2, header - 2);
  }
  let at = header;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export const sequence = (...parts: readonly Uint8Array[]): Uint8Array => tlv(TAG.sequence, ...parts);

/** A non-negative integer from its big-endian octets; leading zeros are dropped, a sign octet is added where needed. */
export function unsignedInteger(octets: Uint8Array): Uint8Array {
  let start = 0;
  while (start < octets.length - 1 && octets[start] === 0) {
    start++;
  }
  const body = octets.subarray(start);
  return (body[0] ?? 0) >= 0x80 || body.length === 0
    ? tlv(TAG.integer, Uint8Array.of(0), body)
    : tlv(TAG.integer, body);
}

export function oidElement(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const octets: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const base128 = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) {
      base128.unshift((left % 128) | 0x80);
    }
    octets.push(...base128);
  }
  return tlv(TAG.oid, Uint8Array.from(octets));
}

/** A bit string of whole octets. */
export const bitString = (octets: Uint8Array): Uint8Array => tlv(TAG.bitString, Uint8Array.of(0), octets);

/** A named bit list with these bits set, trailing zeros dropped. */
export function namedBitString(bits: readonly number[]): Uint8Array {
  const last = Math.max(-1, ...bits);
  const octets = new Uint8Array(Math.ceil((last + 1) / 8) + 1);
  octets[0] = (octets.length - 1) * 8 - last - 1;
  for (const bit of bits) {
    octets[1 + (bit >> 3)] = (octets[1 + (bit >> 3)] as number) | (0x80 >> (bit & 7));
  }
  return tlv(TAG.bitString, octets);
}

/** UTCTime until 2049, GeneralizedTime from 2050; fractions of a second are dropped. SPEC: RFC 5280 §4.1.2.5. */
export function timeElement(ms: number): Uint8Array {
  return encodedTime(String(ms));
}

const encodedTime = memo(64, (ms) => {
  const text = `${new Date(Number(ms)).toISOString().slice(0, 19).replace(/[-:T]/g, "")}Z`;
  const year = Number(text.slice(0, 4));
  return year >= 1950 && year < 2050
    ? tlv(TAG.utcTime, Buffer.from(text.slice(2), "latin1"))
    : tlv(TAG.generalizedTime, Buffer.from(text, "latin1"));
});
