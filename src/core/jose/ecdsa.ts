/**
 * ECDSA signatures between JOSE's form (r and s, each as wide as the field) and DER. node:crypto speaks both, but asked for
 * anything beyond the plain form it costs 30 to 40 µs more a call.
 */

/** `octets` is the field's width: 32, 48 or 66. Null where `der` is no such signature. */
export function joseFromDer(der: Uint8Array, octets: number): Uint8Array | null {
  const header = der[1] === 0x81 ? 3 : 2;
  if (der[0] !== 0x30 || (header === 3 ? der[2] : der[1]) !== der.length - header) {
    return null;
  }
  const out = Buffer.alloc(2 * octets);
  let at = header;
  for (const end of [octets, 2 * octets]) {
    const length = der[at + 1] ?? 0;
    const from = at + 2 + (der[at + 2] === 0 ? 1 : 0);
    at += 2 + length;
    if (at > der.length || at - from > octets) {
      return null;
    }
    out.set(der.subarray(from, at), end - (at - from));
  }
  return at === der.length ? out : null;
}

/** The DER of a signature in JOSE's form, which has an even length below 256. */
export function derFromJose(signature: Uint8Array): Uint8Array {
  const half = signature.length / 2;
  const r = derInteger(signature.subarray(0, half));
  const s = derInteger(signature.subarray(half));
  const length = r.length + s.length;
  return Buffer.concat([length < 0x80 ? Buffer.of(0x30, length) : Buffer.of(0x30, 0x81, length), r, s]);
}

function derInteger(octets: Uint8Array): Uint8Array {
  let start = 0;
  while (start < octets.length - 1 && octets[start] === 0) {
    start++;
  }
  const body = octets.subarray(start);
  const sign = (body[0] ?? 0) >= 0x80 ? [0] : [];
  return Buffer.from([0x02, body.length + sign.length, ...sign, ...body]);
}
