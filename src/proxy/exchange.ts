/** One request and its answer, as far as both are known: what a decision, a metric and a log line are made from. */
import { visibleLines } from "../core/policy/headers.ts";
import type { Answer } from "./http/answers.ts";
import { RequestHead } from "./http/request-head.ts";

const HTTP_LINE = "x-forwarded-proto: http\r\n";
const HTTPS_LINE = "x-forwarded-proto: https\r\n";
export const UPGRADE_TEXT = "connection: Upgrade\r\nupgrade: websocket\r\n";
const NO_BYTES = Buffer.alloc(0);

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
    this.startedAt = performance.now();
  }

  release(): void {
    this.bytes = NO_BYTES;
  }

  /** Lines of a field as policies compare them, by lower-case name; null where there is none. */
  header(name: string): readonly string[] | null {
    return visibleLines(name, this.head.values(this.bytes, this.start, name));
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
    if (head.hostReplaced) {
      lines += `host: ${head.host}\r\n`;
    }
    return head.websocket ? lines + UPGRADE_TEXT : lines;
  }
}
