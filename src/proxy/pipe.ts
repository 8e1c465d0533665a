/** A byte stream with one owner at a time: what the proxy's parts read from and write to, whatever carries it. */
import type { Socket } from "node:net";

/** What an owner is told. After `onClose` nothing more comes. */
export interface PipeHandler {
  onData(chunk: Buffer): void;
  /** Room to write again, after `write` said false. */
  onDrain(): void;
  /** The other side will send nothing more; writing may go on. */
  onEnd(): void;
  onClose(error: Error | null): void;
}

export interface Pipe {
  /** The owner; may be changed at any time (a pooled stream goes from request to request). */
  handler: PipeHandler;
  readonly destroyed: boolean;
  /** False: written, but hold back until `onDrain`. */
  write(chunk: Buffer): boolean;
  /** Bytes accepted and not yet handed to the kernel. */
  readonly buffered: number;
  cork(): void;
  uncork(): void;
  pause(): void;
  resume(): void;
  /** Says that nothing more will be written. */
  end(): void;
  destroy(): void;
  /** Calls `gone` once when the stream is closed, whoever its owner is then. */
  onceGone(gone: () => void): void;
}

const ignore: PipeHandler = { onData() {}, onDrain() {}, onEnd() {}, onClose() {} };

/** A TCP or TLS socket as a Pipe. The socket must allow half-open. */
export class SocketPipe implements Pipe {
  handler: PipeHandler = ignore;
  readonly socket: Socket;
  #error: Error | null = null;
  #paused = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.handler.onData(chunk));
    socket.on("drain", () => this.handler.onDrain());
    socket.on("end", () => this.handler.onEnd());
    socket.on("error", (error) => {
      this.#error = error;
    });
    socket.on("close", () => this.handler.onClose(this.#error));
  }

  get destroyed(): boolean {
    return this.socket.destroyed;
  }

  get buffered(): number {
    return this.socket.writableLength;
  }

  write(chunk: Buffer): boolean {
    return this.socket.writable ? this.socket.write(chunk) : true;
  }

  cork(): void {
    this.socket.cork();
  }

  uncork(): void {
    this.socket.uncork();
  }

  pause(): void {
    if (!this.#paused) {
      this.#paused = true;
      this.socket.pause();
    }
  }

  resume(): void {
    if (this.#paused) {
      this.#paused = false;
      this.socket.resume();
    }
  }

  end(): void {
    if (this.socket.writable) {
      this.socket.end();
    }
  }

  destroy(): void {
    this.socket.destroy();
  }

  onceGone(gone: () => void): void {
    this.socket.once("close", gone);
  }
}

/** The handler of a stream that nobody owns. */
export const NO_HANDLER: PipeHandler = ignore;
