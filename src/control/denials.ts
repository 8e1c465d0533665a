/** The last denials of each service, for `status` and `why`. Bounded, in memory: the access log is the record. */
import type { DenialDocument } from "../core/api/admin.ts";

/** Per service, so that a flood at one does not push out what happened at another. */
const KEPT_PER_SERVICE = 512;

export class Denials {
  readonly #byNode = new Map<string, DenialDocument[]>();
  readonly #kept: number;

  constructor(kept = KEPT_PER_SERVICE) {
    this.#kept = kept;
  }

  add(node: string, denials: readonly DenialDocument[]): void {
    const ring = this.#byNode.get(node) ?? [];
    ring.push(...denials.slice(-this.#kept));
    // Trimmed by halves: a shift for every denial would move the whole ring each time.
    this.#byNode.set(node, ring.length > 2 * this.#kept ? ring.slice(-this.#kept) : ring);
  }

  find(id: string): { readonly node: string; readonly denial: DenialDocument } | null {
    for (const [node, ring] of this.#byNode) {
      const denial = ring.findLast((each) => each.id === id);
      if (denial !== undefined) {
        return { node, denial };
      }
    }
    return null;
  }

  /** The newest `count`, newest first. */
  latest(count: number): readonly DenialDocument[] {
    return [...this.#byNode.values()]
      .flatMap((ring) => ring.slice(-count))
      .sort((a, b) => (a.time < b.time ? 1 : -1))
      .slice(0, count);
  }

  ids(): Iterable<string> {
    return [...this.#byNode.values()].flatMap((ring) => ring.map(({ id }) => id));
  }

  /** Forgets the services that are no more. */
  keepOnly(nodes: ReadonlySet<string>): void {
    for (const node of this.#byNode.keys()) {
      if (!nodes.has(node)) {
        this.#byNode.delete(node);
      }
    }
  }
}
