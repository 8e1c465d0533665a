/** Where a message's body ends. SPEC: RFC 9112 §6.3 (length), §7.1 (chunked). The bytes are forwarded as they are. */
import { COLON, CR, LF, TOKEN, VALUE } from "./chars.ts";
import type { HttpFault } from "./fields.ts";

const NONE = 0;
const LENGTH = 1;
const CHUNKED = 2;
const UNTIL_CLOSE = 3;

const SIZE = 0;
const EXTENSION = 1;
const SIZE_LF = 2;
const DATA = 3;
const DATA_CR = 4;
const DATA_LF = 5;
const TRAILER_START = 6;
const TRAILER_NAME = 7;
const TRAILER_VALUE = 8;
const TRAILER_LF = 9;
const END_LF = 10;

/** 13 hex digits are below 2^52: no sum loses a bit. */
const MAX_SIZE_DIGITS = 13;
const MAX_EXTENSION_BYTES = 1_024;
const MAX_TRAILER_BYTES = 8_192;
const MAX_TRAILER_NAME = 64;

/** What a trailer may not say: it would come after the decision, or change the framing. SPEC: RFC 9110 §6.5.1. */
const FORBIDDEN_TRAILER =
  /^(content-length|transfer-encoding|host|connection|upgrade|te|trailer|authorization|cookie|content-type|content-encoding|content-range|x[-_]forwarded[-_].*|x[-_]everyhop[-_].*|x[-_]envoy[-_].*)$/;

/** HOT: one per connection and direction, reset for each message. */
export class BodyFraming {
  done = true;
  fault: HttpFault | null = null;
  #kind = NONE;
  #remaining = 0;
  #state = SIZE;
  #digits = 0;
  #extra = 0;
  #trailerName = "";

  get untilClose(): boolean {
    return this.#kind === UNTIL_CLOSE;
  }

  /** `contentLength` -1: not given. Neither given nor chunked: no body, or (`elseUntilClose`) all that comes. */
  start(contentLength: number, chunked: boolean, elseUntilClose: boolean): void {
    this.fault = null;
    this.#remaining = contentLength;
    this.#state = SIZE;
    this.#digits = 0;
    this.#extra = 0;
    this.#kind = chunked
      ? CHUNKED
      : contentLength > 0
        ? LENGTH
        : contentLength < 0 && elseUntilClose
          ? UNTIL_CLOSE
          : NONE;
    this.done = this.#kind === NONE;
    if (chunked) {
      this.#remaining = 0;
    }
  }

  none(): void {
    this.start(0, false, false);
  }

  /** Takes body bytes of `bytes` from `at`; returns where the body's bytes in it end, or -1 for a fault. Sets `done`. */
  take(bytes: Buffer, at: number): number {
    const end = bytes.length;
    switch (this.#kind) {
      case NONE:
        return at;
      case UNTIL_CLOSE:
        return end;
      case LENGTH: {
        const here = Math.min(this.#remaining, end - at);
        this.#remaining -= here;
        this.done = this.#remaining === 0;
        return at + here;
      }
      default:
        return this.#takeChunks(bytes, at, end);
    }
  }

  #takeChunks(bytes: Buffer, from: number, end: number): number {
    let at = from;
    while (at < end && !this.done) {
      if (this.#state === DATA) {
        const here = Math.min(this.#remaining, end - at);
        this.#remaining -= here;
        at += here;
        if (this.#remaining === 0) {
          this.#state = DATA_CR;
        }
      } else {
        if (!(this.#state < DATA_CR ? this.#sizeByte(bytes[at]!) : this.#otherByte(bytes[at]!))) {
          this.fault ??= "chunk";
          return -1;
        }
        at++;
      }
    }
    return at;
  }

  #sizeByte(byte: number): boolean {
    if (this.#state === SIZE) {
      const digit = hexDigit(byte);
      if (digit >= 0) {
        this.#digits++;
        this.#remaining = this.#remaining * 16 + digit;
        return this.#digits <= MAX_SIZE_DIGITS;
      }
      if (this.#digits === 0) {
        return false;
      }
      this.#digits = 0;
      this.#state = byte === CR ? SIZE_LF : EXTENSION;
      return byte === CR || byte === 0x3b;
    }
    if (this.#state === EXTENSION) {
      if (byte === CR) {
        this.#state = SIZE_LF;
        return true;
      }
      this.#extra++;
      return VALUE[byte] === 1 && this.#extra <= MAX_EXTENSION_BYTES;
    }
    this.#extra = 0;
    this.#state = this.#remaining === 0 ? TRAILER_START : DATA;
    return byte === LF;
  }

  #otherByte(byte: number): boolean {
    switch (this.#state) {
      case DATA_CR:
        this.#state = DATA_LF;
        return byte === CR;
      case DATA_LF:
        this.#state = SIZE;
        return byte === LF;
      case TRAILER_START:
        if (byte === CR) {
          this.#state = END_LF;
          return true;
        }
        this.#trailerName = "";
        this.#state = TRAILER_NAME;
        return this.#trailerNameByte(byte);
      case TRAILER_NAME:
        return this.#trailerNameByte(byte);
      case TRAILER_VALUE:
        if (byte === CR) {
          this.#state = TRAILER_LF;
          return true;
        }
        return this.#trailerByte() && VALUE[byte] === 1;
      case TRAILER_LF:
        this.#state = TRAILER_START;
        return byte === LF;
      default:
        this.done = byte === LF;
        return byte === LF;
    }
  }

  #trailerNameByte(byte: number): boolean {
    if (byte === COLON && this.#trailerName !== "") {
      this.#state = TRAILER_VALUE;
      if (FORBIDDEN_TRAILER.test(this.#trailerName)) {
        this.fault = "trailer";
        return false;
      }
      return true;
    }
    this.#trailerName += String.fromCharCode(byte).toLowerCase();
    return TOKEN[byte] === 1 && this.#trailerName.length <= MAX_TRAILER_NAME && this.#trailerByte();
  }

  #trailerByte(): boolean {
    this.#extra++;
    if (this.#extra > MAX_TRAILER_BYTES) {
      this.fault = "trailer";
    }
    return this.#extra <= MAX_TRAILER_BYTES;
  }
}

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) {
    return byte - 48;
  }
  const lower = byte | 0x20;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
