/** The server's end of the socket to its signer. */
import type { Duplex } from "node:stream";
import { EveryhopError, toEveryhopError } from "../../core/base/errors.ts";
import type { LogPage } from "../../io/chained-log/chained-log.ts";
import { encodeFrame, type Frame, FrameReader } from "../intent/frames.ts";
import type { HeldKey, Intent, KeyUse, Permit, SetUp, Setup } from "../intent/intent.ts";
import { writeIntent } from "../intent/intent-wire.ts";
import type { KeyType } from "../intent/key-type.ts";
import { malformed, type OctetReader, OctetWriter } from "../intent/octets.ts";
import {
  BATCH_BYTES,
  decode,
  MAX_BATCH,
  OPERATION,
  type Outcome,
  readError,
  readHeldKey,
  readIssued,
  readLogPage,
  readOutcomes,
  readPermit,
  readSetUp,
  writeChain,
  writeId,
  writeSetup,
  writeType,
  writeUse,
} from "../intent/wire.ts";

interface Call {
  readonly done: (body: Uint8Array) => void;
  readonly failed: (error: unknown) => void;
}

/** One connection. When it is over, for whatever reason, all that waits fails with `unavailable`, and so does all that follows. */
export class SignerClient {
  /** Resolves with why, once it is over. */
  readonly ended: Promise<EveryhopError>;
  readonly #socket: Duplex;
  readonly #reader = new FrameReader();
  readonly #calls = new Map<number, Call>();
  readonly #prepares: Batch<Intent, Permit>;
  readonly #signs: Batch<Permit, Uint8Array>;
  #number = 0;
  #over: EveryhopError | null = null;
  #resolveEnded: (error: EveryhopError) => void = () => {};

  constructor(socket: Duplex) {
    this.#socket = socket;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#prepares = new Batch(writeIntent, readPermit, (body) => this.#call(OPERATION.prepare, body));
    const writeToken = (to: OctetWriter, { token }: Permit) => writeId(to, token);
    this.#signs = new Batch(writeToken, readIssued, (body) => this.#call(OPERATION.sign, body));
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", (error) => this.#end(error));
    socket.on("end", () => this.#end(null));
    socket.on("close", () => this.#end(null));
  }

  async setup(setup: Setup): Promise<SetUp> {
    return this.#ask(OPERATION.setup, (to) => writeSetup(to, setup), readSetUp);
  }

  createKey(use: KeyUse, type: KeyType): Promise<HeldKey> {
    return this.#ask(OPERATION.createKey, (to) => writeType(writeUse(to, use), type), readHeldKey);
  }

  prepare(intent: Intent): Promise<Permit> {
    return this.#prepares.add(intent);
  }

  sign(permit: Permit): Promise<Uint8Array> {
    return this.#signs.add(permit);
  }

  adopt(id: string, chain: readonly Uint8Array[]): Promise<void> {
    return this.#ask(
      OPERATION.adopt,
      (to) => writeChain(writeId(to, id), chain),
      () => {},
    );
  }

  discard(use: KeyUse, id: string): Promise<void> {
    return this.#ask(
      OPERATION.discard,
      (to) => writeId(writeUse(to, use), id),
      () => {},
    );
  }

  log(after: number): Promise<LogPage> {
    return this.#ask(OPERATION.log, (to) => to.integer(after), readLogPage);
  }

  /** Ends the connection, and with it the signer. */
  close(): void {
    this.#socket.end();
  }

  async #ask<T>(operation: number, write: (to: OctetWriter) => unknown, read: (from: OctetReader) => T): Promise<T> {
    const body = new OctetWriter();
    write(body);
    return decode(await this.#call(operation, body.done()), read);
  }

  #call(operation: number, body: Uint8Array): Promise<Uint8Array> {
    return new Promise((done, failed) => {
      if (this.#over !== null) {
        failed(this.#over);
        return;
      }
      this.#number = (this.#number + 1) >>> 0;
      const frame = encodeFrame(operation, this.#number, body);
      this.#calls.set(this.#number, { done, failed });
      this.#socket.write(frame);
    });
  }

  #read(chunk: Buffer): void {
    try {
      for (const frame of this.#over === null ? this.#reader.push(chunk) : []) {
        this.#answered(frame);
      }
    } catch (error) {
      this.#end(error);
      this.#socket.destroy();
    }
  }

  #answered({ operation, request, body }: Frame): void {
    const call = this.#calls.get(request);
    if (call === undefined || (operation !== OPERATION.answer && operation !== OPERATION.refused)) {
      throw malformed("an answer that nobody asked for");
    }
    this.#calls.delete(request);
    if (operation === OPERATION.answer) {
      call.done(body);
    } else {
      call.failed(decode(body, readError));
    }
  }

  #end(cause: unknown): void {
    if (this.#over === null) {
      const why = cause === null ? "" : `: ${toEveryhopError(cause).message}`;
      this.#over = new EveryhopError("unavailable", `the signer is not running${why}`, {
        hint: "it is started again by itself; the server's log says why it ended",
      });
      for (const { failed } of this.#calls.values()) {
        failed(this.#over);
      }
      this.#calls.clear();
      this.#resolveEnded(this.#over);
    }
  }
}

interface Waiting<T, R> {
  readonly item: T;
  readonly done: (value: R) => void;
  readonly failed: (error: unknown) => void;
}

/** What is asked for in one turn of the event loop goes in one message, or in as few as their size allows. HOT: per issuance. */
class Batch<T, R> {
  readonly #write: (to: OctetWriter, item: T) => unknown;
  readonly #read: (from: OctetReader) => R;
  readonly #call: (body: Uint8Array) => Promise<Uint8Array>;
  #waiting: Waiting<T, R>[] = [];

  constructor(
    write: (to: OctetWriter, item: T) => unknown,
    read: (from: OctetReader) => R,
    call: (body: Uint8Array) => Promise<Uint8Array>,
  ) {
    this.#write = write;
    this.#read = read;
    this.#call = call;
  }

  add(item: T): Promise<R> {
    return new Promise((done, failed) => {
      this.#waiting.push({ item, done, failed });
      if (this.#waiting.length === 1) {
        setImmediate(() => this.#flush());
      }
    });
  }

  #flush(): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (let at = 0; at < all.length; ) {
      const items = new OctetWriter();
      const batch: Waiting<T, R>[] = [];
      while (at < all.length && batch.length < MAX_BATCH && items.length < BATCH_BYTES) {
        const waiting = all[at++] as Waiting<T, R>;
        this.#write(items, waiting.item);
        batch.push(waiting);
      }
      this.#send(batch, items);
    }
  }

  #send(batch: readonly Waiting<T, R>[], items: OctetWriter): void {
    const body = Buffer.concat([new OctetWriter().u32(batch.length).done(), items.done()]);
    this.#call(body)
      .then((answer) => decode(answer, (from) => readOutcomes(from, this.#read)))
      .then((outcomes) => settle(batch, outcomes))
      .catch((error: unknown) => {
        for (const { failed } of batch) {
          failed(error);
        }
      });
  }
}

function settle<T, R>(batch: readonly Waiting<T, R>[], outcomes: readonly Outcome<R>[]): void {
  if (outcomes.length !== batch.length) {
    throw malformed("an answer for another batch");
  }
  batch.forEach(({ done, failed }, index) => {
    const outcome = outcomes[index] as Outcome<R>;
    if (outcome.ok) {
      done(outcome.value);
    } else {
      failed(outcome.error);
    }
  });
}
