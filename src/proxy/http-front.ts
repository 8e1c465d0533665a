/**
 * The side of an HTTP/1.1 connection on which requests come in. Each request is read where it lies, decided on its own, and
 * the same bytes go on; answers come back in order. What is done with a request is the gate's business.
 */

import { randomUUID } from "node:crypto";
import { Awaited } from "./awaited.ts";
import { Exchange, UPGRADE_TEXT } from "./exchange.ts";
import { HeldBytes } from "./held-bytes.ts";
import {
  type Answer,
  answerBytes,
  BAD_REQUEST,
  HEAD_TOO_LARGE,
  METHOD_NOT_ALLOWED,
  REQUEST_TIMEOUT,
  UPSTREAM_TIMEOUT,
} from "./http/answers.ts";
import { compose } from "./http/compose.ts";
import { FAULT, MORE } from "./http/fields.ts";
import { BodyFraming } from "./http/framing.ts";
import type { HttpBack } from "./http-back.ts";
import { PAUSED_BACK, PAUSED_DECIDING, PAUSED_EARLY, PAUSED_FULL, PAUSED_OPENING, Pauses } from "./pauses.ts";
import { NO_HANDLER, type Pipe, type PipeHandler } from "./pipe.ts";
import { Splice } from "./splice.ts";

/** What stands behind a front: decides, finds the other side, records. One for each connection. */
export interface HttpGate {
  /** Lines (with CRLF) put into every forwarded head, or null. */
  readonly append: Buffer | null;
  /** What `x-forwarded-proto` says where the client did not. */
  readonly scheme: "http" | "https";
  /**
   * HOT. Decides on the exchange of `front`, and sets its `path` to what is forwarded. Null: it may go on. PENDING: it calls
   * `front.decided` later, and until then nothing is forwarded.
   */
  admit(front: HttpFront): Answer | null;
  /** All of the body that the gate wanted to see (`front.collect`) is here. */
  collected(front: HttpFront): void;
  /** An idle connection to the other side, or null: then `open` is called. */
  take(front: HttpFront): HttpBack | null;
  /** Calls `front.opened` or `front.unavailable`, now or later. */
  open(front: HttpFront): void;
  /** The front no longer waits. */
  cancel(front: HttpFront): void;
  /** A connection that may serve another request. */
  release(back: HttpBack): void;
  /** One exchange is over: count and log it. */
  finished(front: HttpFront): void;
  /** The connection is gone. */
  closed(front: HttpFront): void;
}

/** What `admit` gives where the decision has to be waited for. */
export const PENDING: Answer = { status: 0, body: "", lines: "", flags: "-", details: "pending" };

const HEAD = 0;
const BODY = 1;
/** The request was read to its end; what comes is kept until its answer is through. */
const READ = 2;
const CLOSING = 3;
const TUNNEL = 4;

const MAX_LINGER_BYTES = 1_048_576;
const LINGER_MS = 2_000;
const CONTINUE = Buffer.from("HTTP/1.1 100 Continue\r\n\r\n");
const CLOSE_LINE = Buffer.from("connection: close\r\n");
const UPGRADE_LINES = Buffer.from(UPGRADE_TEXT);
const REPEATABLE = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]);

export interface FrontTimeouts {
  readonly headMs: number;
  readonly idleMs: number;
}

export class HttpFront implements PipeHandler {
  readonly pipe: Pipe;
  readonly exchange: Exchange = new Exchange();
  readonly #gate: HttpGate;
  readonly #now: () => number;
  readonly #timeouts: FrontTimeouts;
  readonly #body = new BodyFraming();
  #state = HEAD;
  #back: HttpBack | null = null;
  #opening = false;
  #pending: Buffer | null = null;
  #pendingRest: Buffer | null = null;
  #repeated = false;
  readonly #awaited = new Awaited();
  #held: HeldBytes | null = null;
  #headStarted = false;
  #early: Buffer | null = null;
  readonly #pauses: Pauses;
  #clientEnded = false;
  #draining = false;
  #lingered = 0;
  #feeding = false;
  #lastMoveMs: number;
  #headSinceMs: number;
  #tunnel: Splice | null = null;

  constructor(pipe: Pipe, gate: HttpGate, now: () => number, timeouts: FrontTimeouts) {
    this.pipe = pipe;
    this.#gate = gate;
    this.#now = now;
    this.#timeouts = timeouts;
    this.#lastMoveMs = now();
    this.#headSinceMs = this.#lastMoveMs;
    this.#pauses = new Pauses(pipe);
    pipe.handler = this;
  }

  /** The answer's connection is closed after it: asked for, or decided here. */
  get closes(): boolean {
    return this.exchange.head.close || this.#draining || this.#clientEnded;
  }

  onData(chunk: Buffer): void {
    this.#lastMoveMs = this.#now();
    if (this.#held !== null) {
      const bytes = this.#held.append(chunk);
      this.#held = null;
      this.#feed(bytes);
    } else {
      this.#feed(chunk);
    }
    this.#pauses.apply();
  }

  #feed(bytes: Buffer): void {
    this.#feeding = true;
    this.#feedAll(bytes);
    this.#feeding = false;
  }

  #feedAll(bytes: Buffer): void {
    let at = 0;
    for (;;) {
      switch (this.#state) {
        case HEAD:
          if (at >= bytes.length) {
            return;
          }
          if (this.#pauses.has(PAUSED_FULL)) {
            this.#keep(bytes.subarray(at));
            return;
          }
          at = this.#feedHead(bytes, at);
          break;
        case BODY:
          if (at >= bytes.length) {
            return;
          }
          at = this.#feedBody(bytes, at);
          break;
        case READ:
          if (at < bytes.length) {
            this.#keep(bytes.subarray(at));
          }
          return;
        case TUNNEL:
          return;
        default:
          this.#lingered += bytes.length - at;
          if (this.#lingered > MAX_LINGER_BYTES) {
            this.pipe.destroy();
          }
          return;
      }
    }
  }

  /** Returns where the message's bytes in `bytes` end. */
  #feedHead(bytes: Buffer, at: number): number {
    const { exchange } = this;
    const { head } = exchange;
    if (!this.#headStarted) {
      this.#headStarted = true;
      this.#headSinceMs = this.#lastMoveMs;
      head.reset();
    }
    const progress = head.parse(bytes, at);
    if (progress === MORE) {
      this.#held = HeldBytes.of(bytes, at);
      return bytes.length;
    }
    this.#headStarted = false;
    this.#repeated = false;
    exchange.begin(bytes, at);
    if (progress === FAULT) {
      const tooLarge = head.fault === "head-too-large" || head.fault === "too-many-fields";
      this.#reject(tooLarge ? HEAD_TOO_LARGE : BAD_REQUEST);
      return bytes.length;
    }
    this.#body.start(head.contentLength, head.chunked, false);
    // The body bytes at hand are checked before anything is forwarded: a bad chunk leaves no byte behind.
    const end = this.#body.take(bytes, at + head.length);
    if (end < 0 || head.method === "CONNECT") {
      this.#reject(end < 0 ? BAD_REQUEST : METHOD_NOT_ALLOWED);
      return bytes.length;
    }
    exchange.received = end - at;
    exchange.requestId = head.hasRequestId ? "" : randomUUID();
    const refusal = this.#gate.admit(this);
    if (refusal === PENDING) {
      this.#wait(at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end));
      return end;
    }
    if (refusal !== null) {
      this.#refuse(refusal);
      return this.#state === CLOSING ? bytes.length : end;
    }
    this.#forward(bytes, at, end);
    return end;
  }

  /** Nothing of the request goes on until the gate has decided. */
  #wait(message: Buffer): void {
    this.#awaited.begin(message, this.exchange.head.length);
    this.#state = this.#body.done ? READ : BODY;
    if (this.isCollected) {
      this.#pauses.add(PAUSED_DECIDING);
      this.#gate.collected(this);
    } else if (this.exchange.header("expect") !== null) {
      this.pipe.write(CONTINUE);
    }
  }

  get isWaiting(): boolean {
    return this.#awaited.active;
  }

  /** From the gate, before it decides: that much of the body is wanted. */
  collect(bytes: number): void {
    this.#awaited.wanted = bytes;
    if (this.isWaiting && !this.isCollected) {
      // Nothing was wanted so far, and nothing read.
      this.#pauses.remove(PAUSED_DECIDING);
      this.#pauses.apply();
    }
  }

  /** The gate has what it asked to collect, or there is nothing more to come. */
  get isCollected(): boolean {
    return this.#body.done || this.#awaited.isEnough;
  }

  /** The body as far as it is here while a decision is waited for, in its framing; whether that is all of it. */
  held(): { readonly body: Buffer; readonly complete: boolean } {
    return { body: this.#awaited.body, complete: this.#body.done };
  }

  /** From the gate, after PENDING: null is that the request may go on. */
  decided(answer: Answer | null): void {
    const message = this.#awaited.end();
    if (message === null) {
      return;
    }
    this.#pauses.remove(PAUSED_DECIDING);
    if (answer === null) {
      this.#forward(message, 0, message.length);
      this.#pauses.apply();
      return;
    }
    this.#refuse(answer);
    this.#next();
  }

  #forward(bytes: Buffer, at: number, end: number): void {
    const { exchange } = this;
    const { head, path } = exchange;
    const startLine =
      path === head.target ? null : Buffer.from(`${head.method} ${path} HTTP/1.${head.minor}\r\n`, "latin1");
    const completion = exchange.completion(this.#gate.scheme);
    const out = compose(head, bytes, at, end, startLine, this.#gate.append, completion);
    this.#state = this.#body.done ? READ : BODY;
    // Kept for a second attempt: only where repeating changes nothing and all of it is here.
    const repeatable = this.#body.done && REPEATABLE.has(head.method);
    this.#pending = repeatable ? out.head : null;
    this.#pendingRest = repeatable ? out.rest : null;
    const back = this.#gate.take(this);
    if (back !== null) {
      this.#back = back;
      if (!back.begin(this, out.head, out.rest)) {
        this.#pauses.add(PAUSED_BACK);
      }
      return;
    }
    this.#pending = out.head;
    this.#pendingRest = out.rest;
    this.#open();
  }

  #open(): void {
    this.#opening = true;
    this.#pauses.add(PAUSED_OPENING);
    this.#gate.open(this);
  }

  /** The other side is there. */
  opened(back: HttpBack): void {
    const head = this.#pending;
    if (!this.#opening || head === null) {
      back.pipe.destroy();
      return;
    }
    const rest = this.#pendingRest;
    if (this.#state !== READ || !REPEATABLE.has(this.exchange.head.method)) {
      this.#pending = null;
      this.#pendingRest = null;
    }
    this.#opening = false;
    this.#back = back;
    if (!back.begin(this, head, rest)) {
      this.#pauses.add(PAUSED_BACK);
    }
    this.#pauses.remove(PAUSED_OPENING);
    this.#pauses.apply();
  }

  /** The other side cannot be had. */
  unavailable(answer: Answer): void {
    if (this.#opening) {
      this.#opening = false;
      this.#pauses.remove(PAUSED_OPENING);
      this.#refuse(answer);
      this.#next();
    }
  }

  #feedBody(bytes: Buffer, at: number): number {
    const end = this.#body.take(bytes, at);
    if (end < 0) {
      this.#abandonBack();
      this.#reject(BAD_REQUEST);
      return bytes.length;
    }
    this.exchange.received += end - at;
    if (this.#body.done) {
      this.#state = READ;
    }
    if (this.#awaited.active) {
      this.#collectMore(bytes.subarray(at, end));
      return end;
    }
    if (this.#back !== null && !this.#back.send(at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end))) {
      this.#pauses.add(PAUSED_BACK);
    }
    return end;
  }

  #collectMore(bytes: Buffer): void {
    this.#awaited.add(bytes);
    if (this.isCollected) {
      this.#pauses.add(PAUSED_DECIDING);
      this.#gate.collected(this);
    }
  }

  /** Answers a request that is not understood and closes. INVARIANT: after ambiguous HTTP nothing more is read as HTTP. */
  #reject(answer: Answer): void {
    this.exchange.head.close = true;
    this.#body.none();
    this.#refuse(answer);
  }

  #refuse(answer: Answer): void {
    const { exchange } = this;
    exchange.answer = answer;
    exchange.status = answer.status;
    exchange.flags = answer.flags;
    if (exchange.answered) {
      // Half of another answer has gone out: it must not look complete.
      this.#finish();
      this.pipe.destroy();
      return;
    }
    // A body that has not come yet is not waited for: the client may be waiting for us. SPEC: RFC 9110 §10.1.1.
    const closes = this.closes || !this.#body.done;
    const bytes = answerBytes(answer, exchange.head.method === "HEAD", closes);
    exchange.sent = bytes.length;
    if (!this.pipe.write(bytes)) {
      this.#pauses.add(PAUSED_FULL);
    }
    this.#finish();
    if (closes) {
      this.#close();
    } else {
      this.#state = HEAD;
    }
  }

  #finish(): void {
    if (this.exchange.active) {
      this.exchange.active = false;
      this.#gate.finished(this);
    }
    this.#pending = null;
    this.#pendingRest = null;
    this.exchange.release();
    this.#headSinceMs = this.#lastMoveMs;
  }

  /** No more requests: what was written is sent, what still comes is thrown away for a while, then the connection ends. */
  #close(): void {
    this.#state = CLOSING;
    this.#early = null;
    this.#held = null;
    this.#lastMoveMs = this.#now();
    this.pipe.end();
    this.#pauses.clear();
    this.pipe.resume();
  }

  /** From the back: bytes of the answer. False: hold back. */
  deliver(bytes: Buffer): boolean {
    this.exchange.sent += bytes.length;
    this.#lastMoveMs = this.#now();
    this.exchange.answered = true;
    return this.pipe.write(bytes);
  }

  /** Lines to put into the answer's head. */
  answerLines(websocket: boolean, untilClose: boolean): Buffer | null {
    if (websocket) {
      return UPGRADE_LINES;
    }
    if (untilClose || this.#state === BODY) {
      this.exchange.head.close = true;
    }
    const { answerLines } = this.exchange;
    if (answerLines !== "") {
      return Buffer.from(this.closes ? `${answerLines}connection: close\r\n` : answerLines, "latin1");
    }
    return this.closes ? CLOSE_LINE : null;
  }

  /** From the back: the answer is complete. */
  answered(back: HttpBack, reusable: boolean): void {
    this.#back = null;
    if (reusable && this.#state === READ) {
      this.#gate.release(back);
    } else {
      back.pipe.destroy();
    }
    const complete = this.#state === READ;
    const closes = this.closes || !complete;
    this.#finish();
    this.#pauses.remove(PAUSED_BACK);
    if (closes) {
      this.#close();
    } else {
      this.#state = HEAD;
      this.#next();
    }
  }

  #next(): void {
    if (this.#state !== HEAD || this.#feeding) {
      return;
    }
    const early = this.#early;
    if (early !== null) {
      this.#early = null;
      this.#pauses.remove(PAUSED_EARLY);
      this.#feed(early);
    }
    if (this.#clientEnded && this.#state === HEAD && this.#early === null) {
      this.#close();
      return;
    }
    this.#pauses.apply();
  }

  /** From the back: it closed before its answer was complete. */
  backFailed(back: HttpBack, answer: Answer): void {
    this.#back = null;
    if (
      !this.exchange.answered &&
      back.served > 0 &&
      this.#pending !== null &&
      !this.#repeated &&
      !this.pipe.destroyed
    ) {
      // The other side closed an idle connection as we wrote on it: once more, on a new one.
      this.#repeated = true;
      this.#open();
      return;
    }
    if (this.exchange.answered) {
      this.exchange.flags = answer.flags;
      this.#finish();
      this.pipe.destroy();
      return;
    }
    this.#refuse(answer);
    this.#pauses.remove(PAUSED_BACK);
    this.#next();
  }

  /** From the back: the switch to WebSocket is agreed. */
  switched(back: HttpBack, first: Buffer | null): void {
    this.#back = null;
    this.#state = TUNNEL;
    const early = this.#early;
    this.#early = null;
    this.#pauses.clear();
    const splice = new Splice(this.pipe, back.pipe, this.#now, (end) => {
      this.exchange.received += splice.received;
      this.exchange.sent += splice.sent;
      this.exchange.flags = end.error === null ? "-" : end.side === "downstream" ? "DC" : "UC";
      this.#finish();
      this.#gate.closed(this);
    });
    this.#tunnel = splice;
    if (first !== null) {
      this.pipe.write(first);
    }
    if (early !== null) {
      back.pipe.write(early);
    }
  }

  backDrained(): void {
    this.#pauses.remove(PAUSED_BACK);
    this.#pauses.apply();
  }

  onDrain(): void {
    this.#lastMoveMs = this.#now();
    this.#back?.resume();
    if (this.#pauses.has(PAUSED_FULL)) {
      this.#pauses.remove(PAUSED_FULL);
      this.#next();
    }
  }

  onEnd(): void {
    this.#clientEnded = true;
    if (this.#state === BODY || this.#held !== null) {
      this.#abandonBack();
      this.exchange.flags = "DC";
      this.#finish();
      this.pipe.destroy();
    } else if (this.#state === HEAD && !this.exchange.active && this.#early === null) {
      this.#close();
    }
  }

  onClose(_error: Error | null): void {
    this.pipe.handler = NO_HANDLER;
    if (this.exchange.active) {
      this.exchange.flags = "DC";
    }
    this.#abandonBack();
    this.#finish();
    this.#state = CLOSING;
    this.#gate.closed(this);
  }

  #abandonBack(): void {
    if (this.#awaited.end() !== null) {
      this.#gate.cancel(this);
    }
    if (this.#opening) {
      this.#opening = false;
      this.#gate.cancel(this);
    }
    const back = this.#back;
    this.#back = null;
    back?.abandon();
  }

  tick(nowMs: number): void {
    if (this.#state === CLOSING) {
      // What was written is waited for as long as it moves; what the client still sends, only for a moment.
      if (nowMs - this.#lastMoveMs > (this.pipe.buffered > 0 ? this.#timeouts.idleMs : LINGER_MS)) {
        this.pipe.destroy();
      }
    } else if (this.#tunnel !== null) {
      this.#tunnel.tick(nowMs, this.#timeouts.idleMs);
    } else if (this.#state === HEAD && this.#headStarted && nowMs - this.#headSinceMs > this.#timeouts.headMs) {
      this.exchange.begin(EMPTY, 0);
      this.#reject(REQUEST_TIMEOUT);
    } else if (nowMs - this.#lastMoveMs > this.#timeouts.idleMs) {
      this.#idle();
    }
  }

  #idle(): void {
    if (!this.exchange.active) {
      this.#close();
    } else if (this.exchange.answered) {
      this.exchange.flags = "SI";
      this.destroy();
    } else {
      this.#abandonBack();
      this.#reject(UPSTREAM_TIMEOUT);
    }
  }

  /** Answers what is under way, then closes. */
  /** Closes after the answer that is under way, or is next. */
  retire(): void {
    this.#draining = true;
  }

  drain(): void {
    this.#draining = true;
    if (this.#state === HEAD && !this.exchange.active && this.#held === null) {
      this.#close();
    }
  }

  destroy(): void {
    this.#abandonBack();
    this.#tunnel?.close();
    this.pipe.destroy();
  }

  #keep(bytes: Buffer): void {
    this.#early = this.#early === null ? bytes : Buffer.concat([this.#early, bytes]);
    this.#pauses.add(PAUSED_EARLY);
  }
}

const EMPTY = Buffer.alloc(0);
