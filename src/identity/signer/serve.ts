/** The signer's end of the socket. Whatever is not exactly a message of ours ends the connection, and with it the signer. */
import type { Duplex } from "node:stream";
import { toEveryhopError } from "../../core/base/errors.ts";
import { encodeFrame, type Frame, FrameReader } from "../intent/frames.ts";
import { readIntent } from "../intent/intent-wire.ts";
import { malformed, OctetWriter } from "../intent/octets.ts";
import {
  decode,
  MAX_BATCH,
  OPERATION,
  readChain,
  readId,
  readSetup,
  readType,
  readUse,
  writeError,
  writeHeldKey,
  writeIssued,
  writeLogPage,
  writeOutcomes,
  writePermit,
  writeSetUp,
} from "../intent/wire.ts";
import { Signer, type SignerEdge } from "./signer.ts";

/** Serves one server until its socket ends; resolves with null, or with what was wrong. Never throws. */
export async function serveSigner(socket: Duplex, edge: SignerEdge): Promise<Error | null> {
  const connection = new Connection(socket, edge);
  const fault = await connection.ended;
  socket.destroy();
  await connection.close();
  return fault;
}

const MAX_PENDING = 64;

class Connection {
  readonly ended: Promise<Error | null>;
  readonly #socket: Duplex;
  readonly #edge: SignerEdge;
  readonly #reader = new FrameReader();
  #signer: Signer | null = null;
  /** Whether the setup has come. */
  #asked = false;
  #pending = 0;
  #end: (fault: Error | null) => void = () => {};
  /** Whether it has come to an end: nothing is read any more. */
  #over = false;

  constructor(socket: Duplex, edge: SignerEdge) {
    this.#socket = socket;
    this.#edge = edge;
    this.ended = new Promise((resolve) => {
      this.#end = (fault) => {
        this.#over = true;
        resolve(fault);
      };
    });
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("end", () => this.#end(null));
    socket.on("close", () => this.#end(null));
    socket.on("error", (error) => this.#end(error));
  }

  async close(): Promise<void> {
    await this.#signer?.close();
  }

  #read(chunk: Buffer): void {
    try {
      for (const frame of this.#over ? [] : this.#reader.push(chunk)) {
        this.#answer(frame);
      }
    } catch (error) {
      this.#end(toEveryhopError(error));
    }
  }

  /** Decodes at once, so that what is malformed is never begun; works and answers in its own time. */
  #answer(frame: Frame): void {
    const work = this.#work(frame);
    this.#count(1);
    work().then(
      (body) => this.#send(OPERATION.answer, frame.request, body),
      (error: unknown) => this.#refuse(frame.request, error),
    );
  }

  #refuse(request: number, thrown: unknown): void {
    const error = toEveryhopError(thrown);
    const body = new OctetWriter();
    writeError(body, error);
    this.#send(OPERATION.refused, request, body);
    if (this.#signer === null || error.code === "storage-failed") {
      // Without keys or log it is of no use: the answer goes out, then it ends.
      this.#socket.end(() => this.#end(error));
    }
  }

  /** Who asks faster than it is answered waits: what is begun is bounded. */
  #count(change: number): void {
    this.#pending += change;
    if (this.#pending >= MAX_PENDING) {
      this.#socket.pause();
    } else if (this.#socket.isPaused()) {
      this.#socket.resume();
    }
  }

  #send(operation: number, request: number, body: OctetWriter): void {
    this.#count(-1);
    if (!this.#over) {
      this.#socket.write(encodeFrame(operation, request, body.done()));
    }
  }

  #work({ operation, body }: Frame): () => Promise<OctetWriter> {
    if (operation === OPERATION.setup) {
      return this.#setupWork(body);
    }
    const signer = this.#signer;
    if (signer === null) {
      throw malformed("anything before the setup");
    }
    const to = new OctetWriter();
    switch (operation) {
      case OPERATION.prepare: {
        const intents = decode(body, (from) => from.list(MAX_BATCH, () => readIntent(from)));
        return async () => {
          writeOutcomes(to, signer.prepare(intents), writePermit);
          return to;
        };
      }
      case OPERATION.sign: {
        const tokens = decode(body, (from) => from.list(MAX_BATCH, () => readId(from)));
        return async () => {
          writeOutcomes(to, await signer.sign(tokens), writeIssued);
          return to;
        };
      }
      default:
        return rareWork(signer, operation, body, to);
    }
  }

  #setupWork(body: Uint8Array): () => Promise<OctetWriter> {
    if (this.#asked) {
      throw malformed("a second setup");
    }
    this.#asked = true;
    const setup = decode(body, readSetup);
    return async () => {
      const opened = await Signer.open(setup, this.#edge);
      this.#signer = opened.signer;
      const to = new OctetWriter();
      writeSetUp(to, opened.setUp);
      return to;
    };
  }
}

function rareWork(signer: Signer, operation: number, body: Uint8Array, to: OctetWriter): () => Promise<OctetWriter> {
  switch (operation) {
    case OPERATION.createKey: {
      const [use, type] = decode(body, (from) => [readUse(from), readType(from)] as const);
      return async () => {
        writeHeldKey(to, await signer.createKey(use, type));
        return to;
      };
    }
    case OPERATION.adopt: {
      const [id, chain] = decode(body, (from) => [readId(from), readChain(from)] as const);
      return () => signer.adopt(id, chain).then(() => to);
    }
    case OPERATION.discard: {
      const [use, id] = decode(body, (from) => [readUse(from), readId(from)] as const);
      return () => signer.discard(use, id).then(() => to);
    }
    case OPERATION.log: {
      const after = decode(body, (from) => from.integer());
      return async () => {
        writeLogPage(to, await signer.log(after));
        return to;
      };
    }
    default:
      throw malformed(`the operation ${operation}`);
  }
}
