const LF = 0x0a;

/** The data of a chunked body that `BodyFraming` has found well formed, as far as it is here. */
export function chunkedData(body: Buffer): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const end = body.indexOf(LF, at);
    const size = end === -1 ? 0 : Number.parseInt(body.toString("latin1", at, end), 16);
    if (!(size > 0)) {
      return Buffer.concat(parts);
    }
    parts.push(body.subarray(end + 1, end + 1 + size));
    at = end + 1 + size + 2;
    if (at >= body.length) {
      return Buffer.concat(parts);
    }
  }
}
