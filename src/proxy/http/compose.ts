/** Forwarded heads: the bytes that came, without the lines that are not forwarded, with what is put in their place. */
import type { Fields } from "./fields.ts";

/** A body that came with the head is copied behind it up to this size, so that one write carries both. */
const JOIN_BYTES = 8_192;

export interface Composed {
  head: Buffer;
  /** Body bytes that came with the head and are not in `head`, or null. */
  rest: Buffer | null;
}

/** HOT: reused by every call; read it before the next one. */
const composed: Composed = { head: Buffer.alloc(0), rest: null };

/**
 * The head at `start` of `bytes` and the body bytes up to `end`. `startLine` and `append` (whole lines with CRLF, as is `extra`)
 * are null where nothing changes; then the very bytes that came are forwarded.
 */
export function compose(
  fields: Fields,
  bytes: Buffer,
  start: number,
  end: number,
  startLine: Buffer | null,
  append: Buffer | null,
  extra = "",
): Composed {
  if (fields.removedCount === 0 && startLine === null && append === null && extra === "") {
    composed.head = start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
    composed.rest = null;
    return composed;
  }
  const bodyAt = start + fields.length;
  const bodyBytes = end - bodyAt;
  const join = bodyBytes <= JOIN_BYTES;
  const room = fields.length + (startLine?.length ?? 0) + (append?.length ?? 0) + extra.length + (join ? bodyBytes : 0);
  const out = Buffer.allocUnsafe(room);
  let at = 0;
  let from = start;
  if (startLine !== null) {
    at += startLine.copy(out, 0);
    from = start + fields.fieldsAt;
  }
  if (fields.removedCount > 0) {
    for (let index = 0; index < fields.count; index++) {
      if (fields.removed[index] === 1) {
        at += bytes.copy(out, at, from, start + fields.spans[index * 4]!);
        from = start + fields.lineEnd(index);
      }
    }
  }
  at += bytes.copy(out, at, from, bodyAt - 2);
  if (append !== null) {
    at += append.copy(out, at);
  }
  if (extra !== "") {
    at += out.write(extra, at, "latin1");
  }
  at += bytes.copy(out, at, bodyAt - 2, join ? end : bodyAt);
  composed.head = at === room ? out : out.subarray(0, at);
  composed.rest = join ? null : bytes.subarray(bodyAt, end);
  return composed;
}
