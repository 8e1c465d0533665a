/** An incomplete head that waits for more bytes. Grows by doubling: a client that sends byte by byte costs linear time. */
export class HeldBytes {
  #buffer: Buffer;
  #length: number;

  private constructor(buffer: Buffer, length: number) {
    this.#buffer = buffer;
    this.#length = length;
  }

  /** Takes over what `view` holds from `at`; a view this class made is grown on, other bytes are copied. */
  static of(view: Buffer, at: number): HeldBytes {
    const owner = owners.get(view);
    if (at === 0 && owner !== undefined) {
      return owner;
    }
    const length = view.length - at;
    const buffer = Buffer.allocUnsafeSlow(Math.max(1_024, length * 2));
    view.copy(buffer, 0, at);
    return new HeldBytes(buffer, length);
  }

  /** All bytes so far, then `chunk`. */
  append(chunk: Buffer): Buffer {
    const length = this.#length + chunk.length;
    if (length > this.#buffer.length) {
      const bigger = Buffer.allocUnsafeSlow(length * 2);
      this.#buffer.copy(bigger, 0, 0, this.#length);
      this.#buffer = bigger;
    }
    chunk.copy(this.#buffer, this.#length);
    this.#length = length;
    const view = this.#buffer.subarray(0, length);
    owners.set(view, this);
    return view;
  }
}

/** Which view belongs to which buffer, so that a head that is still incomplete is not copied again. */
const owners = new WeakMap<Buffer, HeldBytes>();
