import { type Cidr, contains, type IpAddress } from "./cidr.ts";
import type { Visitor } from "./radix.ts";

interface Entry {
  readonly block: Cidr;
  readonly ids: number[];
}

/** Blocks of one prefix length, by a hash of their bits. */
interface Length {
  readonly family: 4 | 6;
  readonly prefixLength: number;
  readonly entries: Map<number, Entry[]>;
}

/** CIDR blocks with numbers attached: a look-up costs one step per prefix length in use, however many blocks there are. */
export class CidrTable {
  readonly #lengths: Length[] = [];
  readonly #probe: Probe = { found: false, visit: () => {} };

  constructor() {
    this.#probe.visit = () => {
      this.#probe.found = true;
    };
  }

  add(block: Cidr, id: number): void {
    const { family, prefixLength } = block;
    let length = this.#lengths.find((each) => each.family === family && each.prefixLength === prefixLength);
    if (length === undefined) {
      length = { family, prefixLength, entries: new Map() };
      this.#lengths.push(length);
    }
    const hash = hashOf(block, prefixLength);
    const entries = length.entries.get(hash) ?? [];
    length.entries.set(hash, entries);
    const known = entries.find((entry) => contains(entry.block, block));
    if (known === undefined) {
      entries.push({ block, ids: [id] });
    } else {
      known.ids.push(id);
    }
  }

  /** HOT: visits the ids of every block that has the address. */
  visit(address: IpAddress, visitor: Visitor): void {
    for (let index = 0; index < this.#lengths.length; index++) {
      const length = this.#lengths[index]!;
      if (length.family !== address.family) {
        continue;
      }
      const entries = length.entries.get(hashOf(address, length.prefixLength));
      for (let at = 0; entries !== undefined && at < entries.length; at++) {
        const entry = entries[at]!;
        if (contains(entry.block, address)) {
          visitor.visit(entry.ids);
        }
      }
    }
  }

  /** HOT: whether any block has the address. */
  has(address: IpAddress): boolean {
    this.#probe.found = false;
    this.visit(address, this.#probe);
    return this.#probe.found;
  }
}

interface Probe {
  found: boolean;
  visit: Visitor["visit"];
}

/** Of the first `prefixLength` bits. */
function hashOf({ words }: IpAddress, prefixLength: number): number {
  let hash = prefixLength;
  for (let index = 0, bits = prefixLength; bits > 0; index++, bits -= 32) {
    const word = words[index] ?? 0;
    hash = Math.imul(hash ^ (bits >= 32 ? word : word >>> (32 - bits)), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
}
