import type { Pipe } from "./pipe.ts";

export const PAUSED_EARLY = 1;
export const PAUSED_BACK = 2;
export const PAUSED_OPENING = 4;
export const PAUSED_FULL = 8;
export const PAUSED_DECIDING = 16;

/** Why nothing is read from a pipe: it is read from again when no reason is left. */
export class Pauses {
  readonly #pipe: Pipe;
  #reasons = 0;

  constructor(pipe: Pipe) {
    this.#pipe = pipe;
  }

  has(reason: number): boolean {
    return (this.#reasons & reason) !== 0;
  }

  add(reason: number): void {
    this.#reasons |= reason;
    this.#pipe.pause();
  }

  /** Without reading on at once: `apply` does. */
  remove(reason: number): void {
    this.#reasons &= ~reason;
  }

  clear(): void {
    this.#reasons = 0;
  }

  apply(): void {
    if (this.#reasons === 0) {
      this.#pipe.resume();
    }
  }
}
