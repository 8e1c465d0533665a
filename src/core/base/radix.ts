/** Texts by their beginnings (or their ends), each with numbers attached: which of many prefixes does a text have? */

/** Told of the numbers attached to each prefix that the text has. */
export interface Visitor {
  visit(ids: readonly number[]): void;
}

interface Node {
  /** Character codes on the way to this node from its parent. */
  label: number[];
  ids: number[];
  readonly children: Map<number, Node>;
}

const makeNode = (label: number[]): Node => ({ label, ids: [], children: new Map() });

/** A radix tree; a look-up costs as many steps as there are branches on the way, however many texts it holds. */
export class RadixTree {
  readonly #root = makeNode([]);
  readonly #reversed: boolean;
  #size = 0;

  /** `reversed`: suffixes instead of prefixes. */
  constructor(reversed = false) {
    this.#reversed = reversed;
  }

  get size(): number {
    return this.#size;
  }

  add(text: string, id: number): void {
    const codes = Array.from({ length: text.length }, (_, at) =>
      text.charCodeAt(this.#reversed ? text.length - 1 - at : at),
    );
    let node = this.#root;
    let at = 0;
    while (at < codes.length) {
      const first = codes[at] ?? 0;
      const child = node.children.get(first);
      if (child === undefined) {
        const leaf = makeNode(codes.slice(at));
        node.children.set(first, leaf);
        node = leaf;
        break;
      }
      let common = 1;
      while (common < child.label.length && child.label[common] === codes[at + common]) {
        common++;
      }
      node = common < child.label.length ? split(node, child, common) : child;
      at += common;
    }
    this.#size += node.ids.length === 0 ? 1 : 0;
    node.ids.push(id);
  }

  /** HOT: visits the ids of every prefix of `text`, shortest first. */
  visit(text: string, visitor: Visitor): void {
    let node: Node = this.#root;
    let at = 0;
    for (;;) {
      if (node.ids.length > 0) {
        visitor.visit(node.ids);
      }
      if (at >= text.length) {
        return;
      }
      const next = node.children.get(this.#code(text, at));
      if (next === undefined || !this.#follows(text, at, next.label)) {
        return;
      }
      at += next.label.length;
      node = next;
    }
  }

  /** HOT: whether `text` has any of the prefixes. */
  has(text: string): boolean {
    let node: Node = this.#root;
    let at = 0;
    for (;;) {
      if (node.ids.length > 0) {
        return true;
      }
      if (at >= text.length) {
        return false;
      }
      const next = node.children.get(this.#code(text, at));
      if (next === undefined || !this.#follows(text, at, next.label)) {
        return false;
      }
      at += next.label.length;
      node = next;
    }
  }

  #code(text: string, at: number): number {
    return text.charCodeAt(this.#reversed ? text.length - 1 - at : at);
  }

  #follows(text: string, at: number, label: readonly number[]): boolean {
    if (text.length - at < label.length) {
      return false;
    }
    for (let index = 1; index < label.length; index++) {
      if (this.#code(text, at + index) !== label[index]) {
        return false;
      }
    }
    return true;
  }
}

/** Puts a node between `parent` and `child`, `common` codes down; returns it. */
function split(parent: Node, child: Node, common: number): Node {
  const middle = makeNode(child.label.slice(0, common));
  parent.children.set(middle.label[0] ?? 0, middle);
  child.label = child.label.slice(common);
  middle.children.set(child.label[0] ?? 0, child);
  return middle;
}
