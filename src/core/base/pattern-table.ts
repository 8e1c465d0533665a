import type { Pattern } from "./pattern.ts";
import { RadixTree, type Visitor } from "./radix.ts";

/** Patterns with numbers attached: which of many patterns does a text match? Presence has no place here. */
export class PatternTable {
  readonly #exact = new Map<string, number[]>();
  readonly #prefixes = new RadixTree();
  readonly #suffixes = new RadixTree(true);

  add(pattern: Exclude<Pattern, { readonly kind: "presence" }>, id: number): void {
    if (pattern.kind !== "exact") {
      (pattern.kind === "prefix" ? this.#prefixes : this.#suffixes).add(pattern.text, id);
      return;
    }
    const ids = this.#exact.get(pattern.text);
    if (ids === undefined) {
      this.#exact.set(pattern.text, [id]);
    } else {
      ids.push(id);
    }
  }

  /** HOT: visits the ids of every pattern that `text` matches. */
  visit(text: string, visitor: Visitor): void {
    const exact = this.#exact.size === 0 ? undefined : this.#exact.get(text);
    if (exact !== undefined) {
      visitor.visit(exact);
    }
    if (this.#prefixes.size > 0) {
      this.#prefixes.visit(text, visitor);
    }
    if (this.#suffixes.size > 0) {
      this.#suffixes.visit(text, visitor);
    }
  }
}
