/** The head of an HTTP/1.1 response: its framing, and what is hop by hop. SPEC: RFC 9112 §4 (status line), §6.3 (body length). */
import { CR, decimal, HTAB, LF, SP, spells, text, VALUE } from "./chars.ts";
import { DONE, Fields, type Progress } from "./fields.ts";

const LINE_PHASE = 0;
const FIELDS_PHASE = 1;
const STATUS_LINE_MIN = 12; // `HTTP/1.1 200`

export class ResponseHead extends Fields {
  status = 0;
  minor = 1;
  contentLength = -1;
  chunked = false;
  /** The server closes the connection after this response. */
  close = false;
  /** Seconds from `Keep-Alive: timeout=N`, or 0. */
  keepAliveSeconds = 0;
  websocket = false;
  /** A name of the `Connection` field other than the usual ones: those lines go too. */
  #nominated: string[] | null = null;
  #phase = LINE_PHASE;
  #statusSeen = false;

  reset(): void {
    this.resetFields();
    this.status = 0;
    this.contentLength = -1;
    this.chunked = false;
    this.close = false;
    this.keepAliveSeconds = 0;
    this.websocket = false;
    this.#nominated = null;
    this.#phase = LINE_PHASE;
    this.#statusSeen = false;
  }

  parse(bytes: Buffer, start: number): Progress {
    if (this.#phase === LINE_PHASE) {
      const progress = this.#statusLine(bytes, start);
      if (progress !== DONE) {
        return progress;
      }
    }
    const progress = this.parseFields(bytes, start);
    return progress === DONE ? this.#finish(bytes, start) : progress;
  }

  #statusLine(bytes: Buffer, start: number): Progress {
    const end = bytes.length;
    if (!this.#statusSeen) {
      if (end - start < STATUS_LINE_MIN) {
        return this.more(end - start);
      }
      const minor = bytes[start + 7]! - 48;
      if (text(bytes, start, start + 7) !== "HTTP/1." || (minor !== 0 && minor !== 1) || bytes[start + 8] !== SP) {
        return this.fail("version");
      }
      this.minor = minor;
      this.close = minor === 0;
      this.status = decimal(bytes, start + 9, start + 12);
      if (this.status < 100) {
        return this.fail("start-line");
      }
      this.#statusSeen = true;
      this.at = STATUS_LINE_MIN;
    }
    let p = start + this.at;
    while (p < end && VALUE[bytes[p]!] === 1) {
      p++;
    }
    this.at = p - start;
    if (p + 1 >= end) {
      return p < end && bytes[p] !== CR ? this.fail("start-line") : this.more(end - start);
    }
    const afterStatus = bytes[start + STATUS_LINE_MIN];
    if (bytes[p] !== CR || bytes[p + 1] !== LF || (afterStatus !== SP && afterStatus !== CR)) {
      return this.fail("start-line");
    }
    this.#phase = FIELDS_PHASE;
    this.startFields(p + 2 - start);
    return DONE;
  }

  protected override field(
    bytes: Buffer,
    index: number,
    name: number,
    nameEnd: number,
    value: number,
    end: number,
  ): Progress {
    switch (nameEnd - name) {
      case 7:
        if (spells(bytes, name, "upgrade")) {
          this.websocket = end - value === 9 && spells(bytes, value, "websocket");
          this.remove(index);
        }
        break;
      case 10:
        if (spells(bytes, name, "connection")) {
          this.remove(index);
          this.#connection(bytes, value, end);
        } else if (spells(bytes, name, "keep-alive")) {
          this.remove(index);
          this.keepAliveSeconds = keepAliveTimeout(bytes, value, end);
        }
        break;
      case 14:
        if (spells(bytes, name, "content-length")) {
          const length = decimal(bytes, value, end);
          if (length < 0 || this.contentLength >= 0) {
            return this.fail("content-length");
          }
          this.contentLength = length;
        }
        break;
      case 16:
        if (spells(bytes, name, "proxy-connection")) {
          this.remove(index);
        }
        break;
      case 17:
        if (spells(bytes, name, "transfer-encoding")) {
          if (this.chunked || end - value !== 7 || !spells(bytes, value, "chunked")) {
            return this.fail("transfer-encoding");
          }
          this.chunked = true;
        }
        break;
    }
    return DONE;
  }

  #connection(bytes: Buffer, value: number, end: number): void {
    const length = end - value;
    if (length === 10 && spells(bytes, value, "keep-alive")) {
      return;
    }
    for (const option of text(bytes, value, end).toLowerCase().split(",")) {
      const word = option.trim();
      if (word === "close") {
        this.close = true;
      } else if (word !== "" && word !== "keep-alive" && word !== "upgrade" && word !== "content-length") {
        this.#nominated ??= [];
        this.#nominated.push(word);
      }
    }
  }

  #finish(bytes: Buffer, start: number): Progress {
    if (this.chunked && (this.contentLength >= 0 || this.minor === 0)) {
      return this.fail("length-conflict");
    }
    for (let index = 0; this.#nominated !== null && index < this.count; index++) {
      const name = text(bytes, start + this.spans[index * 4]!, start + this.spans[index * 4 + 1]!).toLowerCase();
      if (name !== "transfer-encoding" && this.#nominated.includes(name)) {
        this.remove(index);
      }
    }
    return DONE;
  }
}

/** N of `timeout=N[, max=M]`. */
function keepAliveTimeout(bytes: Buffer, value: number, end: number): number {
  if (end - value < 9 || !spells(bytes, value, "timeout=")) {
    return 0;
  }
  let stop = value + 8;
  while (stop < end && bytes[stop] !== 0x2c && bytes[stop] !== SP && bytes[stop] !== HTAB) {
    stop++;
  }
  return Math.max(0, decimal(bytes, value + 8, stop));
}
