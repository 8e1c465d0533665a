/** The side of an HTTP/1.1 connection on which answers come in: one request at a time, kept for the next where that is safe. */

import type { Exchange } from "./exchange.ts";
import { HeldBytes } from "./held-bytes.ts";
import { type Answer, UPSTREAM_PROTOCOL, UPSTREAM_RESET } from "./http/answers.ts";
import { compose } from "./http/compose.ts";
import { FAULT, MORE } from "./http/fields.ts";
import { BodyFraming } from "./http/framing.ts";
import { ResponseHead } from "./http/response-head.ts";
import type { Pipe, PipeHandler } from "./pipe.ts";

/** Whose request it is: what the connection that the request came on has to hear and to say. */
export interface Requester {
  readonly pipe: Pipe;
  readonly exchange: Exchange;
  /** Sends bytes of the answer on. False: hold back. */
  deliver(bytes: Buffer): boolean;
  /** Lines to put into the answer's head. */
  answerLines(websocket: boolean, untilClose: boolean): Buffer | null;
  answered(back: HttpBack, reusable: boolean): void;
  switched(back: HttpBack, first: Buffer | null): void;
  backFailed(back: HttpBack, answer: Answer): void;
  backDrained(): void;
}

export class HttpBack implements PipeHandler {
  readonly pipe: Pipe;
  /** Exchanges completed. */
  served = 0;
  /** When it was last used, and how long it may then stay idle. */
  idleSinceMs = 0;
  idleLimitMs = Number.POSITIVE_INFINITY;
  /** Where it goes when a request is over. */
  home: { release(back: HttpBack): void } = { release: (back) => back.pipe.destroy() };
  readonly #head = new ResponseHead();
  readonly #body = new BodyFraming();
  #front: Requester | null = null;
  #inHead = true;
  #held: HeldBytes | null = null;
  #reusable = true;

  constructor(pipe: Pipe) {
    this.pipe = pipe;
    pipe.handler = this;
  }

  get busy(): boolean {
    return this.#front !== null;
  }

  /** Sends a request's first bytes for `front`. False: hold back. */
  begin(front: Requester, head: Buffer, rest: Buffer | null): boolean {
    this.#front = front;
    this.#inHead = true;
    this.#reusable = true;
    this.#head.reset();
    if (rest === null) {
      return this.pipe.write(head);
    }
    this.pipe.cork();
    this.pipe.write(head);
    const room = this.pipe.write(rest);
    this.pipe.uncork();
    return room;
  }

  send(bytes: Buffer): boolean {
    return this.pipe.write(bytes);
  }

  onData(chunk: Buffer): void {
    if (this.#front === null) {
      // Bytes that no request asked for: whatever they are, they must not become the answer to the next one.
      this.pipe.destroy();
      return;
    }
    if (this.#held !== null) {
      const bytes = this.#held.append(chunk);
      this.#held = null;
      this.#feed(bytes, this.#front);
    } else {
      this.#feed(chunk, this.#front);
    }
  }

  #feed(bytes: Buffer, front: Requester): void {
    let at = 0;
    while (this.#inHead) {
      const progress = this.#head.parse(bytes, at);
      if (progress === MORE) {
        this.#held = at < bytes.length ? HeldBytes.of(bytes, at) : null;
        return;
      }
      if (progress === FAULT) {
        this.#fail(UPSTREAM_PROTOCOL);
        return;
      }
      if (this.#head.status >= 200) {
        this.#inHead = false;
      } else {
        if (!this.#interim(bytes, at, front)) {
          return;
        }
        at += this.#head.length;
        this.#head.reset();
        if (at === bytes.length) {
          return;
        }
      }
    }
    this.#answer(bytes, at, front);
  }

  /** 1xx. False: the exchange is over for this connection. */
  #interim(bytes: Buffer, at: number, front: Requester): boolean {
    if (this.#head.status === 101) {
      if (!front.exchange.head.websocket || !this.#head.websocket) {
        this.#fail(UPSTREAM_PROTOCOL);
        return false;
      }
      const headEnd = at + this.#head.length;
      front.exchange.status = 101;
      front.deliver(compose(this.#head, bytes, at, headEnd, null, front.answerLines(true, false)).head);
      this.#front = null;
      front.switched(this, headEnd < bytes.length ? bytes.subarray(headEnd) : null);
      return false;
    }
    if (front.exchange.head.minor === 1) {
      this.#throttle(front.pipe.write(compose(this.#head, bytes, at, at + this.#head.length, null, null).head));
    }
    return true;
  }

  #answer(bytes: Buffer, at: number, front: Requester): void {
    const head = this.#head;
    let end: number;
    if (!front.exchange.answered) {
      const { status } = head;
      if (front.exchange.head.method === "HEAD" || status === 204 || status === 304) {
        this.#body.none();
      } else {
        this.#body.start(head.contentLength, head.chunked, true);
      }
      front.exchange.status = status;
      end = this.#body.take(bytes, at + head.length);
      if (end < 0) {
        this.#fail(UPSTREAM_PROTOCOL);
        return;
      }
      this.#reusable = !head.close && !this.#body.untilClose;
      const lines = front.answerLines(false, this.#body.untilClose);
      const out = compose(head, bytes, at, end, null, lines);
      const room = front.deliver(out.head);
      this.#throttle(out.rest === null ? room : front.deliver(out.rest));
    } else {
      end = this.#body.take(bytes, at);
      if (end < 0) {
        this.#fail(UPSTREAM_PROTOCOL);
        return;
      }
      this.#throttle(front.deliver(end === bytes.length ? bytes : bytes.subarray(0, end)));
    }
    if (this.#body.done) {
      this.#done(front, end === bytes.length);
    }
  }

  #throttle(room: boolean): void {
    if (!room) {
      this.pipe.pause();
    }
  }

  #done(front: Requester, exact: boolean): void {
    this.#front = null;
    this.served++;
    this.pipe.resume();
    if (this.#head.keepAliveSeconds > 0) {
      // The server closes after this long; a second earlier is early enough not to meet it half-way.
      this.idleLimitMs = (this.#head.keepAliveSeconds - 1) * 1_000;
    }
    front.answered(this, this.#reusable && exact && !this.pipe.destroyed);
  }

  #fail(answer: Answer): void {
    const front = this.#front;
    this.#front = null;
    this.pipe.destroy();
    front?.backFailed(this, answer);
  }

  resume(): void {
    this.pipe.resume();
  }

  /** The front is gone; what is under way is worth nothing. */
  abandon(): void {
    this.#front = null;
    this.pipe.destroy();
  }

  onDrain(): void {
    this.#front?.backDrained();
  }

  onEnd(): void {
    const front = this.#front;
    if (front !== null && !this.#inHead && this.#body.untilClose) {
      this.#body.done = true;
      this.#reusable = false;
      this.#done(front, true);
    } else {
      this.#fail(UPSTREAM_RESET);
    }
  }

  onClose(_error: Error | null): void {
    this.#fail(UPSTREAM_RESET);
  }
}
