/** The head of an HTTP/1.1 request: SPEC: RFC 9112 §3 (request line), §6 (framing), RFC 9110 §7.6.1 (connection options). */
import { isIP } from "node:net";
import { decimal, HOST, SP, spells, spellsLoosely, TARGET, TOKEN, text } from "./chars.ts";
import { DONE, Fields, type Progress } from "./fields.ts";

/** Methods that are known; others are answered 400, as Envoy does over HTTP/1.1. Case counts. */
const METHODS: ReadonlySet<string> = new Set(
  (
    "ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE M-SEARCH NOTIFY OPTIONS " +
    "PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE"
  ).split(" "),
);
const LONGEST_METHOD = 32;

/** Fields that a connection option must not take away: they mean something to everyone, or to the decision. */
const KEPT = new Set([
  "host",
  "content-length",
  "transfer-encoding",
  "authorization",
  "cookie",
  "expect",
  "content-type",
]);
const MAX_OPTIONS = 16;

const METHOD_PHASE = 0;
const TARGET_PHASE = 1;
const VERSION_PHASE = 2;
const FIELDS_PHASE = 3;

export class RequestHead extends Fields {
  method = "";
  target = "";
  /** HTTP/1.`minor`. */
  minor = 1;
  host = "";
  /** -1 where there is none. */
  contentLength = -1;
  chunked = false;
  /** The client wants the connection closed after this exchange. */
  close = false;
  /** It asks for a switch to WebSocket; other protocols are not offered on, their `Upgrade` is taken away. */
  websocket = false;
  hostReplaced = false;
  /** `x-request-id` and `x-forwarded-proto` are there. */
  hasRequestId = false;
  hasForwardedProto = false;
  #forwardedIndex = -1;
  #phase = METHOD_PHASE;
  #targetAt = 0;
  #hostIndex = -1;
  #upgradeIndex = -1;
  #upgradeIsWebsocket = false;
  #optionUpgrade = false;
  #nominated: string[] | null = null;

  reset(): void {
    this.resetFields();
    this.method = "";
    this.target = "";
    this.host = "";
    this.contentLength = -1;
    this.chunked = false;
    this.close = false;
    this.websocket = false;
    this.hostReplaced = false;
    this.hasRequestId = false;
    this.hasForwardedProto = false;
    this.#forwardedIndex = -1;
    this.#phase = METHOD_PHASE;
    this.#hostIndex = -1;
    this.#upgradeIndex = -1;
    this.#upgradeIsWebsocket = false;
    this.#optionUpgrade = false;
    this.#nominated = null;
  }

  /** An absolute target's authority takes the place of `Host`; the caller writes the new line. SPEC: RFC 9112 §3.2.2. */
  replaceHost(authority: string): void {
    this.remove(this.#hostIndex);
    this.host = authority;
    this.hostReplaced = true;
  }

  /** Reads on at `start`, where the head begins; call it again with more bytes (from the same start) on MORE. */
  parse(bytes: Buffer, start: number): Progress {
    if (this.#phase !== FIELDS_PHASE) {
      const progress = this.#requestLine(bytes, start);
      if (progress !== DONE) {
        return progress;
      }
    }
    const progress = this.parseFields(bytes, start);
    return progress === DONE ? this.#finish(bytes, start) : progress;
  }

  #requestLine(bytes: Buffer, start: number): Progress {
    const end = bytes.length;
    let p = start + this.at;
    if (this.#phase === METHOD_PHASE) {
      while (p < end && TOKEN[bytes[p]!] === 1) {
        p++;
      }
      if (p - start > LONGEST_METHOD) {
        return this.fail("method");
      }
      if (p === end) {
        return this.#wait(p, start, end);
      }
      if (bytes[p] !== SP) {
        return this.fail("start-line");
      }
      this.method = methodOf(bytes, start, p);
      if (this.method === "") {
        return this.fail("method");
      }
      p++;
      this.#targetAt = p - start;
      this.#phase = TARGET_PHASE;
    }
    if (this.#phase === TARGET_PHASE) {
      while (p < end && TARGET[bytes[p]!] === 1) {
        p++;
      }
      if (p === end) {
        return this.#wait(p, start, end);
      }
      if (bytes[p] !== SP || p - start === this.#targetAt) {
        return this.fail(bytes[p]! < SP ? "start-line" : "target");
      }
      this.target = text(bytes, start + this.#targetAt, p);
      p++;
      this.#phase = VERSION_PHASE;
    }
    return this.#version(bytes, p, start, end);
  }

  #wait(p: number, start: number, end: number): Progress {
    this.at = p - start;
    return this.more(end - start);
  }

  /** `HTTP/1.0` or `HTTP/1.1`, then CRLF. */
  #version(bytes: Buffer, p: number, start: number, end: number): Progress {
    if (end - p < 10) {
      return this.#wait(p, start, end);
    }
    const minor = bytes[p + 7]! - 48;
    const known =
      bytes[p] === 0x48 &&
      bytes[p + 1] === 0x54 &&
      bytes[p + 2] === 0x54 &&
      bytes[p + 3] === 0x50 &&
      bytes[p + 4] === 0x2f &&
      bytes[p + 5] === 0x31 &&
      bytes[p + 6] === 0x2e &&
      (minor === 0 || minor === 1);
    if (!known) {
      return this.fail("version");
    }
    if (bytes[p + 8] !== 13 || bytes[p + 9] !== 10) {
      return this.fail("start-line");
    }
    this.minor = minor;
    this.#phase = FIELDS_PHASE;
    this.startFields(p + 10 - start);
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
      case 2:
        if (spells(bytes, name, "te") && !(end - value === 8 && spells(bytes, value, "trailers"))) {
          this.remove(index);
        }
        break;
      case 4:
        return spells(bytes, name, "host") ? this.#host(bytes, index, value, end) : DONE;
      case 6:
        if (spells(bytes, name, "expect") && !(end - value === 12 && spells(bytes, value, "100-continue"))) {
          return this.fail("expect");
        }
        break;
      case 7:
        if (spells(bytes, name, "upgrade")) {
          this.#upgrade(bytes, index, value, end);
        }
        break;
      case 10:
        if (spells(bytes, name, "connection")) {
          return this.#connection(bytes, index, value, end);
        }
        if (spells(bytes, name, "keep-alive")) {
          this.remove(index);
        }
        break;
      case 12:
        this.hasRequestId ||= spells(bytes, name, "x-request-id");
        break;
      case 14:
        if (spells(bytes, name, "content-length")) {
          return this.#contentLength(bytes, value, end);
        }
        if (spells(bytes, name, "http2-settings")) {
          this.remove(index);
        }
        break;
      case 15:
        if (spells(bytes, name, "x-forwarded-for")) {
          this.#forwardedIndex = index;
        }
        break;
      case 16:
        if (spells(bytes, name, "proxy-connection")) {
          this.remove(index);
        }
        break;
      case 17:
        if (spells(bytes, name, "transfer-encoding")) {
          return this.#transferEncoding(bytes, value, end);
        }
        this.hasForwardedProto ||= spells(bytes, name, "x-forwarded-proto");
        break;
    }
    if ((bytes[name]! | 0x20) === 0x78 && isReserved(bytes, name, nameEnd)) {
      this.remove(index);
    }
    return DONE;
  }

  #host(bytes: Buffer, index: number, value: number, end: number): Progress {
    if (this.#hostIndex >= 0 || value === end) {
      return this.fail("host");
    }
    for (let at = value; at < end; at++) {
      if (HOST[bytes[at]!] === 0) {
        return this.fail("host");
      }
    }
    this.#hostIndex = index;
    this.host = text(bytes, value, end);
    return DONE;
  }

  #contentLength(bytes: Buffer, value: number, end: number): Progress {
    const length = decimal(bytes, value, end);
    // A second one is refused even where it says the same. SPEC: RFC 9112 §6.3, the stricter choice.
    if (length < 0 || this.contentLength >= 0) {
      return this.fail("content-length");
    }
    this.contentLength = length;
    return DONE;
  }

  #transferEncoding(bytes: Buffer, value: number, end: number): Progress {
    if (this.chunked || end - value !== 7 || !spells(bytes, value, "chunked")) {
      return this.fail("transfer-encoding");
    }
    this.chunked = true;
    return DONE;
  }

  #upgrade(bytes: Buffer, index: number, value: number, end: number): void {
    this.#upgradeIsWebsocket = this.#upgradeIndex < 0 && end - value === 9 && spells(bytes, value, "websocket");
    this.#upgradeIndex = index;
    this.remove(index);
  }

  #connection(bytes: Buffer, index: number, value: number, end: number): Progress {
    this.remove(index);
    if (end - value === 10 && spells(bytes, value, "keep-alive")) {
      return DONE;
    }
    const options = text(bytes, value, end)
      .toLowerCase()
      .split(",", MAX_OPTIONS + 1);
    if (options.length > MAX_OPTIONS) {
      return this.fail("connection-option");
    }
    for (const option of options) {
      const word = option.trim();
      if (word === "close") {
        this.close = true;
      } else if (word === "upgrade") {
        this.#optionUpgrade = true;
      } else if (word !== "" && word !== "keep-alive") {
        if (KEPT.has(word) || word.startsWith("x-forwarded-")) {
          return this.fail("connection-option");
        }
        this.#nominated ??= [];
        this.#nominated.push(word);
      }
    }
    return DONE;
  }

  #finish(bytes: Buffer, start: number): Progress {
    // SPEC: RFC 9112 §3.2: no Host is 400 in HTTP/1.1; in 1.0 too here, so that a rule on hosts always has one to see.
    if (this.#hostIndex < 0) {
      return this.fail("host");
    }
    if (this.chunked && this.contentLength >= 0) {
      return this.fail("length-conflict");
    }
    if (this.minor === 0) {
      // SPEC: RFC 9112 §6.1: Transfer-Encoding in HTTP/1.0 is faulty framing.
      if (this.chunked) {
        return this.fail("transfer-encoding");
      }
      this.close = true;
    }
    if (this.#nominated !== null) {
      this.#removeNominated(bytes, start, this.#nominated);
    }
    this.websocket =
      this.#optionUpgrade &&
      this.#upgradeIsWebsocket &&
      this.method === "GET" &&
      this.minor === 1 &&
      !this.chunked &&
      this.contentLength <= 0;
    return DONE;
  }

  /** The last entry of X-Forwarded-For, where it is an address: Istio's `remote.ip`. */
  forwardedFor(bytes: Buffer, start: number): string | null {
    const index = this.#forwardedIndex;
    if (index < 0) {
      return null;
    }
    const value = text(bytes, start + this.spans[index * 4 + 2]!, start + this.spans[index * 4 + 3]!);
    const last = value.slice(value.lastIndexOf(",") + 1).trim();
    return isIP(last) === 0 ? null : last;
  }

  #removeNominated(bytes: Buffer, start: number, names: readonly string[]): void {
    for (let index = 0; index < this.count; index++) {
      const name = text(bytes, start + this.spans[index * 4]!, start + this.spans[index * 4 + 1]!).toLowerCase();
      if (names.includes(name)) {
        this.remove(index);
      }
    }
  }
}

/** The method as one of our own strings; empty where it is unknown. HOT: the four usual ones cost no allocation. */
function methodOf(bytes: Buffer, from: number, to: number): string {
  const first = bytes[from];
  if (to - from === 3 && first === 0x47 && bytes[from + 1] === 0x45 && bytes[from + 2] === 0x54) {
    return "GET";
  }
  if (
    to - from === 4 &&
    first === 0x50 &&
    bytes[from + 1] === 0x4f &&
    bytes[from + 2] === 0x53 &&
    bytes[from + 3] === 0x54
  ) {
    return "POST";
  }
  const method = text(bytes, from, to);
  return METHODS.has(method) ? method : "";
}

/** Fields by which proxies speak of identity to services: only ours may arrive there. */
function isReserved(bytes: Buffer, name: number, nameEnd: number): boolean {
  const length = nameEnd - name;
  return (
    (length === 23 && spellsLoosely(bytes, name, "x-forwarded-client-cert")) ||
    (length > 11 && spellsLoosely(bytes, name, "x-everyhop-")) ||
    (length > 8 && spellsLoosely(bytes, name, "x-envoy-"))
  );
}
