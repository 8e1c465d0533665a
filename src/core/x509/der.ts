import { EveryhopError } from "../base/errors.ts";
import { memo } from "../base/memo.ts";

/** The tags that X.509 uses, as whole identifier octets. SPEC: X.690 §8.1.2. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

const MAX_DEPTH = 24;

export function derError(what: string): EveryhopError {
  return new EveryhopError("invalid-argument", `malformed DER: ${what}`);
}

/**
 * Reads DER, strictly: definite minimal lengths, low tag numbers, nothing outside its bounds, bounded depth. The bytes given
 * out are views on the input. Errors: `invalid-argument`. SPEC: X.690 §10, §11.
 */
export class DerReader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  readonly #depth: number;
  #at: number;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length, depth = 0) {
    if (depth > MAX_DEPTH) {
      throw derError("nested too deeply");
    }
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    this.#depth = depth;
  }

  /** The tag of the next element; -1 at the end. */
  peek(): number {
    return this.#at < this.#end ? (this.#bytes[this.#at] as number) : -1;
  }

  /** Enters the next element, which must carry `tag`. */
  enter(tag: number): DerReader {
    const start = this.#header(tag);
    const end = this.#at;
    return new DerReader(this.#bytes, start, end, this.#depth + 1);
  }

  /** The contents of the next element, which must carry `tag`. */
  content(tag: number): Uint8Array {
    const start = this.#header(tag);
    return this.#bytes.subarray(start, this.#at);
  }

  /** The next element with its header, whatever its tag (or only `tag`, where given). */
  element(tag = this.peek()): Uint8Array {
    const start = this.#at;
    this.#header(tag);
    return this.#bytes.subarray(start, this.#at);
  }

  /** Refuses trailing bytes. */
  done(): void {
    if (this.#at !== this.#end) {
      throw derError(`${this.#end - this.#at} trailing bytes`);
    }
  }

  /** Steps over one header and its contents; returns where the contents begin. */
  #header(tag: number): number {
    const bytes = this.#bytes;
    let at = this.#at;
    if (at + 2 > this.#end) {
      throw derError("cut short");
    }
    const found = bytes[at++] as number;
    if (found !== tag) {
      throw derError(`expected tag 0x${tag.toString(16)}, found 0x${found.toString(16)}`);
    }
    if ((found & 0x1f) === 0x1f) {
      throw derError("high tag numbers are not used in certificates");
    }
    let length = bytes[at++] as number;
    if (length >= 0x80) {
      const octets = length & 0x7f;
      if (octets === 0 || octets > 4 || at + octets > this.#end) {
        throw derError(octets === 0 ? "indefinite length" : "impossible length");
      }
      length = 0;
      for (let i = 0; i < octets; i++) {
        length = length * 256 + (bytes[at++] as number);
      }
      if (length < 0x80 || length < 256 ** (octets - 1)) {
        throw derError("length is not minimal");
      }
    }
    if (length > this.#end - at) {
      throw derError("an element is longer than what holds it");
    }
    this.#at = at + length;
    return at;
  }

  boolean(): boolean {
    const content = this.content(TAG.boolean);
    if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) {
      throw derError("a boolean is neither 0x00 nor 0xff");
    }
    return content[0] === 0xff;
  }

  /** The two's complement octets of an integer, minimal as DER wants them. */
  integer(tag: number = TAG.integer): Uint8Array {
    const content = this.content(tag);
    const [first, second] = content;
    if (first === undefined) {
      throw derError("an integer is empty");
    }
    if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))) {
      throw derError("an integer is not minimal");
    }
    return content;
  }

  /** A non-negative integer of at most 31 bits. */
  smallInteger(): number {
    const content = this.integer();
    if (content.length > 4 || (content[0] as number) >= 0x80) {
      throw derError("an integer is out of range");
    }
    return content.reduce((total, octet) => total * 256 + octet, 0);
  }

  /** The dotted form of an object identifier. */
  oid(): string {
    return decodeOid(this.content(TAG.oid));
  }

  /** A bit string of whole octets, as keys and signatures are. */
  octetAlignedBits(): Uint8Array {
    const content = this.content(TAG.bitString);
    if (content.length === 0 || content[0] !== 0) {
      throw derError("a bit string is not made of whole octets");
    }
    return content.subarray(1);
  }

  /** A named bit list: the set bits' numbers, ascending. DER drops trailing zero bits. SPEC: X.690 §11.2.2. */
  namedBits(): number[] {
    const content = this.content(TAG.bitString);
    const unused = content[0];
    if (unused === undefined || unused > 7 || (content.length === 1 && unused !== 0) || content.length > 9) {
      throw derError("impossible bit string");
    }
    const bits: number[] = [];
    for (let bit = 0; bit < (content.length - 1) * 8; bit++) {
      if (((content[1 + (bit >> 3)] as number) & (0x80 >> (bit & 7))) !== 0) {
        bits.push(bit);
      }
    }
    const last = bits.at(-1) ?? -1;
    if (last !== (content.length - 1) * 8 - unused - 1) {
      throw derError("a bit list has trailing zeros");
    }
    return bits;
  }

  /** UTCTime or GeneralizedTime, in milliseconds since the epoch. SPEC: RFC 5280 §4.1.2.5. */
  time(): number {
    const tag = this.peek();
    if (tag !== TAG.utcTime && tag !== TAG.generalizedTime) {
      throw derError("expected a time");
    }
    return (tag === TAG.utcTime ? utcTime : generalizedTime)(asciiText(this.content(tag)));
  }
}

const utcTime = memo(64, (text) => decodeTime(text, true));
const generalizedTime = memo(64, (text) => decodeTime(text, false));

function decodeTime(text: string, short: boolean): number {
  const match = (short ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/).exec(
    text,
  );
  if (match === null) {
    throw derError(`\`${text.slice(0, 32)}\` is not a time`);
  }
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match.slice(1).map(Number);
  const fullYear = short ? year + (year < 50 ? 2000 : 1900) : year;
  const ms = Date.UTC(fullYear, month - 1, day, hour, minute, second);
  const date = new Date(ms);
  // Date.UTC rolls over: the 31st of a short month, hour 24 and the years 0-99 come back as another day.
  if (date.getUTCFullYear() !== fullYear || date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59) {
    throw derError(`\`${text}\` is not a time`);
  }
  return ms;
}

/** ASCII contents as text; other octets are refused. */
export function asciiText(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
  if (/[\x80-\xff]/.test(text)) {
    throw derError("text is not ASCII");
  }
  return text;
}

function decodeOid(content: Uint8Array): string {
  if (content.length === 0 || content.length > 64 || (content[content.length - 1] as number) >= 0x80) {
    throw derError("impossible object identifier");
  }
  let text = "";
  let arc = 0;
  let fresh = true;
  for (const octet of content) {
    if ((fresh && octet === 0x80) || arc >= 2 ** 45) {
      throw derError("impossible object identifier");
    }
    arc = arc * 128 + (octet & 0x7f);
    fresh = octet < 0x80;
    if (fresh) {
      text += text === "" ? firstArcs(arc) : `.${arc}`;
      arc = 0;
    }
  }
  return text;
}

function firstArcs(value: number): string {
  const first = value < 40 ? 0 : value < 80 ? 1 : 2;
  return `${first}.${value - first * 40}`;
}

/** All elements of a concatenation, each with its header (the Workload API sends chains this way). */
export function splitDer(bytes: Uint8Array, limit = 64): Uint8Array[] {
  const reader = new DerReader(bytes);
  const elements: Uint8Array[] = [];
  while (reader.peek() !== -1) {
    if (elements.length === limit) {
      throw derError(`more than ${limit} elements`);
    }
    elements.push(reader.element(TAG.sequence));
  }
  return elements;
}
