/**
 * The header section of an HTTP/1.1 message, read where it lies: positions, not copies. Strict (RFC 9112 §5): no folded
 * lines, no bare LF, no space before the colon, no control bytes. Resumable at any byte: what comes out depends on the bytes
 * alone, never on how they were cut into chunks.
 */
import { COLON, CR, HTAB, LF, SP, TOKEN, text, VALUE } from "./chars.ts";

export const MAX_HEAD_BYTES = 65_536;
export const MAX_FIELDS = 100;

/** `more`: the head is not complete. A fault is final. */
export const MORE = 0;
export const DONE = 1;
export const FAULT = 2;
export type Progress = typeof MORE | typeof DONE | typeof FAULT;

/** Why a message is refused. Stable: they label logs. */
export type HttpFault =
  | "start-line"
  | "method"
  | "target"
  | "version"
  | "field-line"
  | "head-too-large"
  | "too-many-fields"
  | "host"
  | "content-length"
  | "transfer-encoding"
  | "length-conflict"
  | "connection-option"
  | "chunk"
  | "trailer"
  | "expect";

const NAME_PHASE = 0;
const VALUE_PHASE = 1;

/** HOT: one per connection and direction, reset for each message; nothing is allocated while parsing. */
export abstract class Fields {
  /** Start and end of each name and value, four numbers a line, relative to the head's start. */
  readonly spans: Int32Array = new Int32Array(MAX_FIELDS * 4);
  /** Lines that are not forwarded. */
  readonly removed: Uint8Array = new Uint8Array(MAX_FIELDS);
  count = 0;
  removedCount = 0;
  /** Where the first field line begins, and the length of the whole head, relative to its start. */
  fieldsAt = 0;
  length = 0;
  fault: HttpFault | null = null;
  protected at = 0;
  #phase = NAME_PHASE;
  #lineAt = 0;
  #nameEnd = 0;

  protected resetFields(): void {
    this.count = 0;
    this.removedCount = 0;
    this.fieldsAt = 0;
    this.length = 0;
    this.fault = null;
    this.at = 0;
    this.#phase = NAME_PHASE;
    this.#lineAt = 0;
  }

  protected fail(fault: HttpFault): Progress {
    this.fault = fault;
    return FAULT;
  }

  protected remove(index: number): void {
    if (this.removed[index] === 0) {
      this.removed[index] = 1;
      this.removedCount++;
    }
  }

  /** What a field line means for this message; `index` is its number, the positions are in `bytes`. */
  protected abstract field(
    bytes: Buffer,
    index: number,
    name: number,
    nameEnd: number,
    value: number,
    end: number,
  ): Progress;

  /** Reads field lines of the head that starts at `start` in `bytes`, up to the empty line. */
  protected parseFields(bytes: Buffer, start: number): Progress {
    const end = bytes.length;
    for (;;) {
      if (this.#phase === NAME_PHASE && this.at === this.#lineAt) {
        const at = start + this.at;
        if (at < end && bytes[at] === CR) {
          if (at + 1 === end) {
            return this.more(end - start);
          }
          if (bytes[at + 1] !== LF) {
            return this.fail("field-line");
          }
          this.length = this.at + 2;
          return this.length > MAX_HEAD_BYTES ? this.fail("head-too-large") : DONE;
        }
      }
      const progress = this.#line(bytes, start, end);
      if (progress !== DONE) {
        return progress === MORE ? this.more(end - start) : progress;
      }
    }
  }

  protected startFields(at: number): void {
    this.fieldsAt = at;
    this.at = at;
    this.#lineAt = at;
  }

  protected more(held: number): Progress {
    return held > MAX_HEAD_BYTES ? this.fail("head-too-large") : MORE;
  }

  #line(bytes: Buffer, start: number, end: number): Progress {
    let p = start + this.at;
    if (this.#phase === NAME_PHASE) {
      while (p < end && TOKEN[bytes[p]!] === 1) {
        p++;
      }
      if (p === end) {
        this.at = p - start;
        return MORE;
      }
      if (bytes[p] !== COLON || p - start === this.#lineAt) {
        return this.fail("field-line");
      }
      this.#nameEnd = p - start;
      this.#phase = VALUE_PHASE;
      p++;
    }
    while (p < end && VALUE[bytes[p]!] === 1) {
      p++;
    }
    if (p + 1 >= end) {
      this.at = p - start;
      return p < end && bytes[p] !== CR ? this.fail("field-line") : MORE;
    }
    if (bytes[p] !== CR || bytes[p + 1] !== LF) {
      return this.fail("field-line");
    }
    return this.#keep(bytes, start, p);
  }

  #keep(bytes: Buffer, start: number, lineEnd: number): Progress {
    const index = this.count;
    if (index === MAX_FIELDS) {
      return this.fail("too-many-fields");
    }
    let value = start + this.#nameEnd + 1;
    let end = lineEnd;
    while (value < end && (bytes[value] === SP || bytes[value] === HTAB)) {
      value++;
    }
    while (end > value && (bytes[end - 1] === SP || bytes[end - 1] === HTAB)) {
      end--;
    }
    const spans = this.spans;
    const name = this.#lineAt;
    spans[index * 4] = name;
    spans[index * 4 + 1] = this.#nameEnd;
    spans[index * 4 + 2] = value - start;
    spans[index * 4 + 3] = end - start;
    this.removed[index] = 0;
    this.count = index + 1;
    this.at = lineEnd + 2 - start;
    this.#lineAt = this.at;
    this.#phase = NAME_PHASE;
    return this.field(bytes, index, start + name, start + this.#nameEnd, value, end);
  }

  /** Takes away every line of a field, by its lower-case name. */
  removeNamed(bytes: Buffer, start: number, name: string): void {
    for (let index = 0; index < this.count; index++) {
      if (this.#isNamed(bytes, start, index, name)) {
        this.remove(index);
      }
    }
  }

  #isNamed(bytes: Buffer, start: number, index: number, name: string): boolean {
    const at = this.spans[index * 4]!;
    const nameEnd = this.spans[index * 4 + 1]!;
    return nameEnd - at === name.length && text(bytes, start + at, start + nameEnd).toLowerCase() === name;
  }

  /** All lines that are forwarded, as name (in lower case) and value. */
  lines(bytes: Buffer, start: number): [name: string, value: string][] {
    const found: [string, string][] = [];
    for (let index = 0; index < this.count; index++) {
      if (this.removed[index] === 0) {
        const [at, nameEnd, value, end] = this.spans.subarray(index * 4, index * 4 + 4) as unknown as [
          number,
          number,
          number,
          number,
        ];
        found.push([text(bytes, start + at, start + nameEnd).toLowerCase(), text(bytes, start + value, start + end)]);
      }
    }
    return found;
  }

  /** The end of a line's bytes, relative to the head's start. */
  lineEnd(index: number): number {
    return index + 1 < this.count ? this.spans[(index + 1) * 4]! : this.length - 2;
  }

  /** Values of a field by its lower-case name, one for each line that is forwarded. */
  values(bytes: Buffer, start: number, name: string): string[] {
    const found: string[] = [];
    for (let index = 0; index < this.count; index++) {
      if (this.removed[index] === 0 && this.#isNamed(bytes, start, index, name)) {
        found.push(text(bytes, start + this.spans[index * 4 + 2]!, start + this.spans[index * 4 + 3]!));
      }
    }
    return found;
  }
}
