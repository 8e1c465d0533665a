import { type Selector, selectorsMatch } from "../../core/entries/selector.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { NodeRecord } from "../../io/store/store.ts";

const NONE: ReadonlySet<SpiffeId> = new Set();

/** The nodes, and which of them have a selector. */
export class NodeTable {
  readonly #nodes = new Map<SpiffeId, NodeRecord>();
  readonly #bySelector = new Map<Selector, Set<SpiffeId>>();

  get size(): number {
    return this.#nodes.size;
  }

  get(id: SpiffeId): NodeRecord | undefined {
    return this.#nodes.get(id);
  }

  keys(): Iterable<SpiffeId> {
    return this.#nodes.keys();
  }

  values(): Iterable<NodeRecord> {
    return this.#nodes.values();
  }

  set(id: SpiffeId, node: NodeRecord): void {
    this.delete(id);
    this.#nodes.set(id, node);
    for (const selector of node.selectors) {
      const ids = this.#bySelector.get(selector);
      if (ids === undefined) {
        this.#bySelector.set(selector, new Set([id]));
      } else {
        ids.add(id);
      }
    }
  }

  delete(id: SpiffeId): boolean {
    for (const selector of this.#nodes.get(id)?.selectors ?? []) {
      const ids = this.#bySelector.get(selector);
      if (ids?.delete(id) === true && ids.size === 0) {
        this.#bySelector.delete(selector);
      }
    }
    return this.#nodes.delete(id);
  }

  /** Those that have all of `selectors`; looked for among those that have the rarest. */
  having(selectors: readonly Selector[]): readonly SpiffeId[] {
    const [rarest = NONE] = selectors
      .map((selector) => this.#bySelector.get(selector) ?? NONE)
      .sort((left, right) => left.size - right.size);
    return [...rarest].filter((id) => selectorsMatch(selectors, new Set(this.#nodes.get(id)?.selectors)));
  }
}
