/** One JSON line for each request or connection, in Istio's field names, written in batches. */
import { closeSync, openSync, write } from "node:fs";
import type { Counter } from "../io/metrics.ts";

/** Lines wait at most this long, or until this many characters came together. */
const FLUSH_MS = 100;
const FLUSH_CHARACTERS = 65_536;
/** Lines are dropped, and counted, beyond this: a reader that stands still must not fill our memory. */
const MAX_WAITING_CHARACTERS = 8 * 1024 * 1024;

export class AccessLog {
  readonly #fd: number;
  readonly #owned: boolean;
  readonly #dropped: Counter;
  #lines: string[] = [];
  #characters = 0;
  #writing = false;
  #timer: NodeJS.Timeout | null = null;

  /** `path` `-` is standard output. */
  constructor(path: string, dropped: Counter) {
    this.#owned = path !== "-";
    this.#fd = this.#owned ? openSync(path, "a", 0o640) : 1;
    this.#dropped = dropped;
  }

  /** HOT. `line` without its newline. */
  write(line: string): void {
    if (this.#characters > MAX_WAITING_CHARACTERS) {
      this.#dropped.value++;
      return;
    }
    this.#lines.push(line);
    this.#characters += line.length;
    if (this.#characters > FLUSH_CHARACTERS) {
      this.#flush();
    } else if (this.#timer === null) {
      this.#timer = setTimeout(() => {
        this.#timer = null;
        this.#flush();
      }, FLUSH_MS);
      this.#timer.unref();
    }
  }

  #flush(): void {
    if (this.#writing || this.#lines.length === 0) {
      return;
    }
    this.#writing = true;
    const characters = this.#characters;
    // All of it is ASCII (`jsonString`), which is three times cheaper to encode than UTF-8.
    const bytes = Buffer.from(`${this.#lines.join("\n")}\n`, "latin1");
    this.#lines = [];
    this.#send(bytes, 0, () => {
      this.#writing = false;
      this.#characters -= characters;
      if (this.#characters > FLUSH_CHARACTERS) {
        this.#flush();
      } else if (this.#lines.length > 0 && this.#timer === null) {
        this.#timer = setTimeout(() => {
          this.#timer = null;
          this.#flush();
        }, FLUSH_MS);
        this.#timer.unref();
      }
    });
  }

  #send(bytes: Buffer, at: number, done: () => void): void {
    write(this.#fd, bytes, at, bytes.length - at, null, (error, written) => {
      if (error?.code === "EAGAIN") {
        setTimeout(() => this.#send(bytes, at, done), 5);
      } else if (error !== null || at + written === bytes.length) {
        if (error !== null) {
          this.#dropped.value++;
        }
        done();
      } else {
        this.#send(bytes, at + written, done);
      }
    });
  }

  /** Writes what waits, then closes. */
  async close(): Promise<void> {
    if (this.#timer !== null) {
      clearTimeout(this.#timer);
    }
    while (this.#writing || this.#lines.length > 0) {
      this.#flush();
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    if (this.#owned) {
      closeSync(this.#fd);
    }
  }
}

const PLAIN = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

/** HOT: a string as JSON in ASCII; most need no escaping. */
export function jsonString(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text).replace(NOT_ASCII, escapeUnit);
}

const NOT_ASCII = /[^\x20-\x7e]/g;
const escapeUnit = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;

let secondText = "";
let second = -1;

/** RFC 3339 in UTC with milliseconds; the part that changes once a second is kept. */
export function timestamp(ms: number): string {
  const whole = Math.floor(ms / 1_000);
  if (whole !== second) {
    second = whole;
    secondText = new Date(whole * 1_000).toISOString().slice(0, 20);
  }
  const rest = Math.floor(ms - whole * 1_000);
  return `${secondText}${rest < 10 ? "00" : rest < 100 ? "0" : ""}${rest}Z`;
}
