const FIRST_SLOTS = 1_024;

/**
 * Serial numbers that were used, by their last 64 bits, which are random: two that agree in them are taken for one. 16 octets for each,
 * where a Set of strings would take a hundred: a signer's log holds millions.
 */
export class SerialSet {
  #slots = new Uint32Array(2 * FIRST_SLOTS);
  #count = 0;

  /** False where it was there. `serial`: at least 16 digits of hex. */
  add(serial: string): boolean {
    if (this.#count * 2 >= this.#slots.length / 2) {
      this.#grow();
    }
    const high = Number.parseInt(serial.slice(-16, -8), 16);
    const low = Number.parseInt(serial.slice(-8), 16);
    if (!insert(this.#slots, high, low)) {
      return false;
    }
    this.#count++;
    return true;
  }

  #grow(): void {
    const larger = new Uint32Array(this.#slots.length * 2);
    for (let at = 0; at < this.#slots.length; at += 2) {
      const [high, low] = [this.#slots[at] as number, this.#slots[at + 1] as number];
      if (high !== 0 || low !== 0) {
        insert(larger, high, low);
      }
    }
    this.#slots = larger;
  }
}

/** Open addressing; a free slot is all zero. The numbers are random, so they are their own hash. */
function insert(slots: Uint32Array, high: number, low: number): boolean {
  const mask = slots.length / 2 - 1;
  for (let slot = low & mask; ; slot = (slot + 1) & mask) {
    const [h, l] = [slots[2 * slot] as number, slots[2 * slot + 1] as number];
    if (h === high && l === low) {
      return false;
    }
    if (h === 0 && l === 0) {
      slots[2 * slot] = high;
      slots[2 * slot + 1] = low;
      return true;
    }
  }
}
