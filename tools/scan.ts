/**
 * A scanner of TypeScript text, fast enough to look at every file on every check: it knows comments, strings, templates
 * and regular expressions, and so finds imports and functions without a compiler.
 */

export interface Import {
  /** As written: `./x.ts`, `node:fs`, `yaml`; null where it is computed. */
  readonly specifier: string | null;
  /** `url` is `new URL("./x.ts", import.meta.url)`: how a worker's code is named. */
  readonly kind: "static" | "type" | "dynamic" | "url";
  readonly line: number;
}

export interface FunctionSpan {
  readonly name: string;
  readonly line: number;
  readonly lines: number;
}

/** Words after which a slash begins a regular expression, not a division. */
const BEFORE_REGEX = /(?:^|[^\w$.])(?:return|typeof|case|in|of|delete|void|throw|new|else|do|await|yield|instanceof)$/;

/** `text` with the insides of comments, strings, templates and regular expressions blanked; every offset stays. */
export function mask(text: string): string {
  return new Masker(text).run();
}

class Masker {
  readonly #text: string;
  readonly #out: string[] = [];
  #kept = 0;
  #at = 0;
  #depth = 0;
  /** Brace depths at which a `}` ends a `${…}` of a template. */
  readonly #templates: number[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  run(): string {
    while (this.#at < this.#text.length) {
      this.#step(this.#text[this.#at] as string);
    }
    this.#out.push(this.#text.slice(this.#kept));
    return this.#out.join("");
  }

  #step(char: string): void {
    const next = this.#text[this.#at + 1];
    if (char === "/" && (next === "/" || next === "*")) {
      const end = this.#text.indexOf(next === "/" ? "\n" : "*/", this.#at + 2);
      this.#blankTo(end === -1 ? this.#text.length : end + (next === "/" ? 0 : 2), this.#at);
    } else if (char === "'" || char === '"') {
      this.#blankTo(endOfQuoted(this.#text, this.#at, char), this.#at + 1);
      this.#at++;
    } else if (char === "/" && startsRegex(this.#text, this.#at)) {
      this.#blankTo(endOfRegex(this.#text, this.#at), this.#at + 1);
      this.#at++;
    } else {
      this.#at++;
      if (char === "`" || (char === "}" && this.#templates.at(-1) === --this.#depth)) {
        this.#template(char === "}");
      } else if (char === "{") {
        this.#depth++;
      }
    }
  }

  /** Blanks from `from` and goes on at `to`. */
  #blankTo(to: number, from: number): void {
    this.#out.push(this.#text.slice(this.#kept, from), this.#text.slice(from, to).replace(/[^\n]/g, " "));
    this.#kept = to;
    this.#at = to;
  }

  /** The text of a template up to its end or its next `${`. */
  #template(resumed: boolean): void {
    if (resumed) {
      this.#templates.pop();
    }
    let at = this.#at;
    while (at < this.#text.length && this.#text[at] !== "`") {
      if (this.#text.startsWith("${", at)) {
        this.#blankTo(at, this.#at);
        this.#at += 2;
        this.#templates.push(this.#depth++);
        return;
      }
      at += this.#text[at] === "\\" ? 2 : 1;
    }
    this.#blankTo(at, this.#at);
    this.#at++;
  }
}

function endOfQuoted(text: string, start: number, quote: string): number {
  let at = start + 1;
  while (at < text.length && text[at] !== quote && text[at] !== "\n") {
    at += text[at] === "\\" ? 2 : 1;
  }
  return Math.min(at, text.length);
}

function endOfRegex(text: string, start: number): number {
  let at = start + 1;
  let inClass = false;
  while (at < text.length && text[at] !== "\n") {
    const char = text[at];
    if (char === "/" && !inClass) {
      return at;
    }
    inClass = char === "[" ? true : char === "]" ? false : inClass;
    at += char === "\\" ? 2 : 1;
  }
  return Math.min(at, text.length);
}

function startsRegex(text: string, at: number): boolean {
  const before = text.slice(Math.max(0, at - 40), at).trimEnd();
  return before === "" || /[=(,:;!&|?{[+\-*~^<>%]$/.test(before) || BEFORE_REGEX.test(before);
}

/** Offsets at which lines begin, and the line (from 1) of an offset. */
export function lineAt(text: string): (offset: number) => number {
  const starts = [0];
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) {
    starts.push(at + 1);
  }
  return (offset) => {
    let low = 0;
    let high = starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((starts[middle] ?? 0) <= offset) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low + 1;
  };
}

const FROM =
  /(?<![\w$.])(?:(import|export)\s+(type\s)?[^;"'`()=]*?\bfrom\s*(["'])|import\s*(["'])|import\s*(\()|new\s+URL\s*(\())/g;

/** Everything that `text` imports: statements, `import type`, `import()`, `import("x").T`, worker URLs. */
export function importsOf(text: string, masked = mask(text)): Import[] {
  const line = lineAt(text);
  const found: Import[] = [];
  for (const match of masked.matchAll(FROM)) {
    const end = match.index + match[0].length;
    const at = line(match.index);
    if (match[3] !== undefined || match[4] !== undefined) {
      const specifier = text.slice(end, endOfQuoted(text, end - 1, (match[3] ?? match[4]) as string));
      found.push({ specifier, kind: match[2] === undefined ? "static" : "type", line: at });
      continue;
    }
    const literal = /^\s*(?:(["'])([^"'\n]*)\1|`([^`$]*)`)/.exec(text.slice(end, end + 300));
    const specifier = literal?.[2] ?? literal?.[3] ?? null;
    if (match[6] !== undefined) {
      const local = specifier !== null && /^\.\.?\/.*\.[jt]s$/.test(specifier);
      if (local && /^[^)]*import\.meta\.url/.test(text.slice(end, end + 300))) {
        found.push({ specifier, kind: "url", line: at });
      }
    } else {
      found.push({ specifier, kind: "dynamic", line: at });
    }
  }
  return found;
}

const NOT_FUNCTIONS = new Set(["if", "for", "while", "switch", "catch", "with", "await"]);

/** Every function, method and arrow function with a body in braces, and how many lines it takes. */
export function functionsOf(text: string, masked = mask(text)): FunctionSpan[] {
  const line = lineAt(text);
  const found: FunctionSpan[] = [];
  const open: { at: number; name: string | null }[] = [];
  /** Closing bracket → where it was opened. */
  const openedAt = new Map<number, number>();
  for (const match of masked.matchAll(/[()[\]{}]/g)) {
    const at = match.index;
    if ("([{".includes(match[0])) {
      open.push({ at, name: match[0] === "{" ? functionName(masked, at, openedAt) : null });
      continue;
    }
    const block = open.pop();
    if (block !== undefined) {
      openedAt.set(at, block.at);
      if (block.name !== null) {
        const start = line(block.at);
        found.push({ name: block.name, line: start, lines: line(at) - start + 1 });
      }
    }
  }
  return found;
}

/** The name of the function whose body opens at `brace`, "" where it has none, null where this is no function's body. */
function functionName(masked: string, brace: number, openedAt: ReadonlyMap<number, number>): string | null {
  let at = skipSpace(masked, brace - 1);
  const arrow = masked[at] === ">" && masked[at - 1] === "=";
  if (arrow) {
    at = skipSpace(masked, at - 2);
  }
  const parameters = masked[at] === ")" ? at : beforeReturnType(masked, at, openedAt);
  if (parameters === null) {
    return arrow ? "" : null;
  }
  const opened = openedAt.get(parameters) ?? 0;
  const before = masked.slice(Math.max(0, opened - 200), opened).replace(/<[^()<>]*>\s*$/, "");
  if (arrow && /\bdescribe(?:\.\w+)?\([^()]*$/.test(before)) {
    // A heading over tests, not a function that someone reads as one.
    return null;
  }
  if (arrow) {
    return /([\w$#]+)\s*[=:]\s*(?:async\s*)?$/.exec(before)?.[1] ?? "";
  }
  const name = /([\w$#]+)\s*$/.exec(before)?.[1] ?? "";
  return NOT_FUNCTIONS.has(name) || /\bclass\s[^;{}]*$/.test(before) ? null : name;
}

function skipSpace(masked: string, from: number): number {
  let at = from;
  while (at >= 0 && /\s/.test(masked[at] as string)) {
    at--;
  }
  return at;
}

/** Walks back over a return type, `): Promise<Map<string, X>>`, to its `)`; null where there is none. */
function beforeReturnType(masked: string, from: number, openedAt: ReadonlyMap<number, number>): number | null {
  for (let at = from; at >= 0; at--) {
    const char = masked[at] as string;
    if (char === ":") {
      const close = skipSpace(masked, at - 1);
      return masked[close] === ")" ? close : null;
    }
    if (";={(".includes(char) || (char === "}" && /^\s*\n/.test(masked.slice(at + 1, from + 1)))) {
      return null;
    }
    if (")}]".includes(char)) {
      at = openedAt.get(at) ?? 0;
    }
  }
  return null;
}
