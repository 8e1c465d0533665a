/** One request and its answer, as far as both are known: what a decision, a metric and a log line are made from. */
import { visibleLines } from "../core/policy/headers.ts";
import type { Answer } from "./http/answers.ts";
import { RequestHead } from "./http/request-head.ts";

const HTTP_LINE = "x-forwarded-proto: http\r\n";
const HTTPS_LINE = "x-forwarded-proto: https\r\n";
export const UPGRADE_TEXT = "connection: Upgrade\r\nupgrade: websocket\r\n";
const NO_BYTES = Buffer.alloc(0);
const NOTHING: ReadonlyMap<string, readonly string[]> = new Map();

/** HOT: one for each connection, begun anew for each request. */
export class Exchange {
  readonly head: RequestHead = new RequestHead();
  /** Between a head and the end of its answer. */
  active = false;
  /** What is forwarded; set by the gate that admits. */
  path = "";
  /** Made here where the request came without one; else empty. */
  requestId = "";
  status = 0;
  flags = "-";
  /** Bytes of request and answer, heads included. */
  received = 0;
  sent = 0;
  startedAt = 0;
  /** Bytes of the answer have gone out. */
  answered = false;
  /** The answer we gave ourselves; null where it came from the other side. */
  answer: Answer | null = null;
  /** The bytes the head was read from: kept while the exchange lasts, which may be decided on again. */
  bytes: Buffer = NO_BYTES;
  start = 0;
  /** Fields put in by us, by lower-case name, beside the lines that came; null: none. */
  #added: Map<string, readonly string[]> | null = null;
  /** Lines (with CRLF) put into the head of the answer; empty: none. */
  answerLines = "";

  begin(bytes: Buffer, start: number): void {
    this.active = true;
    this.answered = false;
    this.bytes = bytes;
    this.start = start;
    this.path = "";
    this.requestId = "";
    this.status = 0;
    this.flags = "-";
    this.received = bytes.length - start;
    this.sent = 0;
    this.answer = null;
    this.#added = null;
    this.answerLines = "";
    this.startedAt = performance.now();
  }

  release(): void {
    this.bytes = NO_BYTES;
  }

  /** Lines of a field as policies compare them, by lower-case name; null where there is none. */
  header(name: string): readonly string[] | null {
    const came = this.head.values(this.bytes, this.start, name);
    const added = this.#added?.get(name);
    return visibleLines(name, added === undefined ? came : [...came, ...added]);
  }

  /** Takes a field away, whoever put it in. */
  removeField(name: string): void {
    this.head.removeNamed(this.bytes, this.start, name);
    this.#added?.delete(name);
  }

  /** Puts lines of a field in, beside those that are there. */
  addField(name: string, values: readonly string[]): void {
    this.#added ??= new Map();
    this.#added.set(name, [...(this.#added.get(name) ?? []), ...values]);
  }

  /** Every field as it will be forwarded. */
  fields(): [name: string, value: string][] {
    const added = [...(this.#added ?? [])].flatMap(([name, values]) =>
      values.map((value): [string, string] => [name, value]),
    );
    return [...this.head.lines(this.bytes, this.start), ...added];
  }

  /** The last address of X-Forwarded-For; null where there is none. */
  forwardedFor(): string | null {
    return this.head.forwardedFor(this.bytes, this.start);
  }

  /** The request's id, given or made; null for a request that was not understood. */
  knownRequestId(): string | null {
    return this.head.hasRequestId ? (this.header("x-request-id")?.[0] ?? null) : this.requestId || null;
  }

  /** The lines this one request lacks. `scheme` is for where the client did not say. */
  completion(scheme: "http" | "https"): string {
    const { head } = this;
    let lines = this.requestId === "" ? "" : `x-request-id: ${this.requestId}\r\n`;
    if (!head.hasForwardedProto) {
      lines += scheme === "https" ? HTTPS_LINE : HTTP_LINE;
    }
    for (const [name, values] of this.#added ?? NOTHING) {
      lines += values.map((value) => `${name}: ${value}\r\n`).join("");
    }
    if (head.hostReplaced) {
      lines += `host: ${head.host}\r\n`;
    }
    return head.websocket ? lines + UPGRADE_TEXT : lines;
  }
}
