/** Octets of the signer's messages: fixed-width integers, and byte strings with their length before them. */
import { EveryhopError } from "../../core/base/errors.ts";

const FIRST_BYTES = 4_096;

/** Writes one message. HOT: one buffer, which grows by doubling. */
export class OctetWriter {
  #buffer = Buffer.allocUnsafe(FIRST_BYTES);
  #length = 0;

  u8(value: number): this {
    this.#room(1);
    this.#buffer[this.#length++] = value;
    return this;
  }

  u32(value: number): this {
    this.#room(4);
    this.#length = this.#buffer.writeUInt32BE(value, this.#length);
    return this;
  }

  /** A time in milliseconds, or a count: any integer below 2^53. */
  integer(value: number): this {
    this.#room(8);
    this.#length = this.#buffer.writeDoubleBE(value, this.#length);
    return this;
  }

  bytes(value: Uint8Array): this {
    this.u32(value.length).#room(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  text(value: string): this {
    const size = Buffer.byteLength(value);
    this.u32(size).#room(size);
    this.#length += this.#buffer.write(value, this.#length);
    return this;
  }

  list<T>(items: readonly T[], write: (item: T) => unknown): this {
    this.u32(items.length);
    for (const item of items) {
      write(item);
    }
    return this;
  }

  /** What was written so far. */
  done(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  get length(): number {
    return this.#length;
  }

  #room(size: number): void {
    if (this.#length + size > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + size));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
  }
}

/** Reads one message, strictly. Byte strings are views on it. Errors: `invalid-argument` for whatever does not parse. */
export class OctetReader {
  readonly #buffer: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  u8(): number {
    return this.#buffer[this.#advance(1)] as number;
  }

  u32(): number {
    return this.#buffer.readUInt32BE(this.#advance(4));
  }

  integer(): number {
    const value = this.#buffer.readDoubleBE(this.#advance(8));
    if (!Number.isSafeInteger(value)) {
      throw malformed("a number that is no integer");
    }
    return value;
  }

  bytes(limit: number): Buffer {
    const size = this.u32();
    if (size > limit) {
      throw malformed(`${size} bytes where ${limit} are allowed`);
    }
    const start = this.#advance(size);
    return this.#buffer.subarray(start, start + size);
  }

  /** UTF-8. */
  text(limit: number): string {
    const bytes = this.bytes(limit);
    const text = bytes.toString("utf8");
    // What is no UTF-8 would come back as other bytes.
    if (Buffer.byteLength(text) !== bytes.length || (text.includes("\ufffd") && !Buffer.from(text).equals(bytes))) {
      throw malformed("text that is not UTF-8");
    }
    return text;
  }

  list<T>(limit: number, read: () => T): T[] {
    const count = this.u32();
    if (count > limit) {
      throw malformed(`${count} items where ${limit} are allowed`);
    }
    return Array.from({ length: count }, read);
  }

  /** Nothing may be left. */
  done(): void {
    if (this.#at !== this.#buffer.length) {
      throw malformed("octets after the end");
    }
  }

  #advance(size: number): number {
    const start = this.#at;
    if (start + size > this.#buffer.length) {
      throw malformed("it ends early");
    }
    this.#at = start + size;
    return start;
  }
}

export function malformed(why: string): EveryhopError {
  return new EveryhopError("invalid-argument", `malformed message: ${why}`);
}
