/**
 * Frames on the socket between server and signer: length (4 octets), version, operation, number of the request (4 octets), body.
 * A reader that meets anything else throws, and its owner ends the connection.
 */
import { malformed } from "./octets.ts";

export const VERSION = 1;
export const MAX_FRAME_BYTES = 4 * 1024 * 1024;
const HEADER_BYTES = 6;

export interface Frame {
  readonly operation: number;
  /** The answer carries the number of its request. */
  readonly request: number;
  readonly body: Uint8Array;
}

/** The octets of a frame. Errors: `invalid-argument` where it is too large. */
export function encodeFrame(operation: number, request: number, body: Uint8Array): Buffer {
  const length = HEADER_BYTES + body.length;
  if (length > MAX_FRAME_BYTES) {
    throw malformed(`a frame of ${length} bytes`);
  }
  const frame = Buffer.allocUnsafe(4 + length);
  frame.writeUInt32BE(length, 0);
  frame[4] = VERSION;
  frame[5] = operation;
  frame.writeUInt32BE(request, 6);
  frame.set(body, 4 + HEADER_BYTES);
  return frame;
}

/** Cuts what comes in into frames. Holds one frame at most. */
export class FrameReader {
  #held: Buffer[] = [];
  #size = 0;

  /** The frames that are whole with `chunk`. Errors: `invalid-argument`; nothing may be read after that. */
  push(chunk: Buffer): Frame[] {
    this.#held.push(chunk);
    this.#size += chunk.length;
    const frames: Frame[] = [];
    for (let need = this.#needed(); this.#size >= need; need = this.#needed()) {
      if (need > 4) {
        frames.push(this.#take(need));
      }
    }
    return frames;
  }

  /** Octets up to the end of the next frame; 4 while its length is not known. */
  #needed(): number {
    if (this.#size < 4) {
      return 4;
    }
    const length = this.#joined().readUInt32BE(0);
    if (length < HEADER_BYTES || length > MAX_FRAME_BYTES) {
      throw malformed(`a frame of ${length} bytes`);
    }
    return 4 + length;
  }

  #joined(): Buffer {
    // Joined only when the length is not in the first piece, or the frame is whole: a large frame is not copied per piece.
    const [first] = this.#held;
    if (first !== undefined && first.length >= 4) {
      return first;
    }
    const joined = Buffer.concat(this.#held);
    this.#held = [joined];
    return joined;
  }

  #take(size: number): Frame {
    const all = this.#held.length === 1 ? (this.#held[0] as Buffer) : Buffer.concat(this.#held);
    const rest = all.subarray(size);
    this.#held = rest.length === 0 ? [] : [rest];
    this.#size = rest.length;
    const [version, operation] = [all[4] as number, all[5] as number];
    if (version !== VERSION) {
      throw malformed(`version ${version}`);
    }
    return { operation, request: all.readUInt32BE(6), body: all.subarray(4 + HEADER_BYTES, size) };
  }
}
