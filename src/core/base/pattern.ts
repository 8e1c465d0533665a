import { RadixTree } from "./radix.ts";

/**
 * Istio's string forms: `*` presence, `abc*` prefix, `*abc` suffix, else exact. A star counts only as the whole value,
 * as the first byte, or (where the first byte is none) as the last; `*x*` is the suffix `x*`, `a*b` is exact.
 * SOURCE: istio pilot/pkg/security/authz/matcher/string.go.
 */
export type Pattern =
  | { readonly kind: "presence" }
  | { readonly kind: "prefix"; readonly text: string }
  | { readonly kind: "suffix"; readonly text: string }
  | { readonly kind: "exact"; readonly text: string };

export function parsePattern(value: string): Pattern {
  if (value === "*") {
    return { kind: "presence" };
  }
  if (value.startsWith("*")) {
    return { kind: "suffix", text: value.slice(1) };
  }
  return value.endsWith("*") ? { kind: "prefix", text: value.slice(0, -1) } : { kind: "exact", text: value };
}

/** Presence wants at least one byte, none of them a line feed (it is the regular expression `.+` in Envoy). */
export function matchesPattern(pattern: Pattern, value: string): boolean {
  switch (pattern.kind) {
    case "exact":
      return value === pattern.text;
    case "prefix":
      return value.startsWith(pattern.text);
    case "suffix":
      return value.endsWith(pattern.text);
    case "presence":
      return value !== "" && !value.includes("\n");
  }
}

/** So many patterns of a form (or fewer) are compared one by one: a table costs more, and more memory to look at. */
const FEW = 4;

/** A list of patterns of which one must match; a look-up does not grow with them. */
export class PatternSet {
  readonly #few: Pattern[] = [];
  readonly #exact: ReadonlySet<string> | null;
  readonly #prefixes = new RadixTree();
  readonly #suffixes = new RadixTree(true);

  constructor(values: readonly string[]) {
    const patterns = values.map(parsePattern);
    const exact = patterns.filter((pattern) => pattern.kind === "exact");
    const many = patterns.filter(({ kind }) => kind === "prefix" || kind === "suffix").length > FEW;
    this.#exact = exact.length > FEW ? new Set(exact.map(({ text }) => text)) : null;
    for (const pattern of patterns) {
      if (many && (pattern.kind === "prefix" || pattern.kind === "suffix")) {
        (pattern.kind === "prefix" ? this.#prefixes : this.#suffixes).add(pattern.text, 0);
      } else if (pattern.kind !== "exact" || this.#exact === null) {
        this.#few.push(pattern);
      }
    }
  }

  /** HOT: no allocation. */
  matches(value: string): boolean {
    if (this.#exact?.has(value)) {
      return true;
    }
    for (let index = 0; index < this.#few.length; index++) {
      if (matchesPattern(this.#few[index]!, value)) {
        return true;
      }
    }
    return (
      (this.#prefixes.size > 0 && this.#prefixes.has(value)) || (this.#suffixes.size > 0 && this.#suffixes.has(value))
    );
  }
}

/** ASCII letters in lower case, all else as it is. HOT: returns `text` itself where there is nothing to change. */
export function asciiLower(text: string): string {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code >= 0x41 && code <= 0x5a) {
      return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
    }
  }
  return text;
}

/** Text as HTTP carries it: UTF-8, one character per byte. */
export function toWire(text: string): string {
  for (let at = 0; at < text.length; at++) {
    if (text.charCodeAt(at) > 0x7f) {
      return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
    }
  }
  return text;
}
