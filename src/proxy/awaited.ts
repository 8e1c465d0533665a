import { HeldBytes } from "./held-bytes.ts";

const NO_BYTES = Buffer.alloc(0);

/** A request whose decision is waited for: its head, and as much of its body as whoever decides wants to see. */
export class Awaited {
  /** How much of the body is wanted. */
  wanted = 0;
  #message: Buffer | null = null;
  #headLength = 0;
  #held: HeldBytes | null = null;

  get active(): boolean {
    return this.#message !== null;
  }

  get isEnough(): boolean {
    return (this.#message?.length ?? 0) - this.#headLength >= this.wanted;
  }

  /** The body as far as it is here, in its framing. */
  get body(): Buffer {
    return this.#message?.subarray(this.#headLength) ?? NO_BYTES;
  }

  begin(message: Buffer, headLength: number): void {
    this.#message = message;
    this.#headLength = headLength;
  }

  /** More of the body. Its bytes are gathered by doubling: a client that sends one by one costs linear time. */
  add(bytes: Buffer): void {
    this.#held ??= HeldBytes.of(this.#message ?? NO_BYTES, 0);
    this.#message = this.#held.append(bytes);
  }

  /** Head and body so far; nothing is waited for any more. Null where nothing was. */
  end(): Buffer | null {
    const message = this.#message;
    this.#message = null;
    this.#held = null;
    this.wanted = 0;
    return message;
  }
}
