/**
 * HCL (version 1) and its JSON form, as SPIRE's configuration files use it, to the same documents with places that YAML gives.
 * A block `plugins { KeyManager "disk" { … } }` becomes `{plugins: {KeyManager: {disk: {…}}}}`; blocks of one name are merged.
 */
import type { Issue, Place } from "./errors.ts";
import { formatPath, type Path, type YamlDocument, type YamlFile } from "./yaml.ts";

/** Nesting deeper than this is refused: a configuration is never so deep, an attack may be. */
const MAX_DEPTH = 64;

type TokenKind = "word" | "string" | "number" | "punctuation" | "newline" | "end";

interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  readonly at: number;
}

class HclFault extends Error {
  readonly at: number;
  constructor(message: string, at: number) {
    super(message);
    this.at = at;
  }
}

/** Parses `text`; on a fault the only issue says where and what, and there is no document. */
export function parseHcl(text: string, file?: string): YamlFile {
  const placeOf = (at: number): Place => {
    const before = text.slice(0, at).split("\n");
    return { ...(file === undefined ? {} : { file }), line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
  };
  try {
    const parser = new Parser(text);
    const value = parser.document();
    const locate = (path: Path, keys: ReadonlyMap<string, number>): Place => {
      for (let length = path.length; length > 0; length--) {
        const at = keys.get(formatPath(path.slice(0, length)));
        if (at !== undefined) {
          return { ...placeOf(at), path: formatPath(path) };
        }
      }
      return { ...placeOf(0), path: formatPath(path) };
    };
    const document: YamlDocument = {
      file,
      index: 0,
      value,
      place: (path) => locate(path, parser.valuePlaces),
      keyPlace: (path) => locate(path, parser.keyPlaces),
    };
    return { documents: [document], issues: [] };
  } catch (error) {
    if (!(error instanceof HclFault)) {
      throw error;
    }
    const issue: Issue = { code: "hcl-syntax", severity: "error", message: error.message, ...placeOf(error.at) };
    return { documents: [], issues: [issue] };
  }
}

type Mapping = Record<string, unknown>;

class Parser {
  /** Offset of the key, and of the value, at each path. */
  readonly keyPlaces = new Map<string, number>();
  readonly valuePlaces = new Map<string, number>();
  readonly #tokens: Tokens;

  constructor(text: string) {
    this.#tokens = new Tokens(text);
  }

  document(): Mapping {
    const first = this.#tokens.skipNewlines();
    if (first.text === "{" && first.kind === "punctuation") {
      const value = this.#value([], 0) as Mapping;
      this.#expectEnd();
      return value;
    }
    const result = this.#body([], 0, "end");
    this.#expectEnd();
    return result;
  }

  #expectEnd(): void {
    const token = this.#tokens.skipNewlines();
    if (token.kind !== "end") {
      throw new HclFault(`unexpected \`${token.text}\` after the end`, token.at);
    }
  }

  /** Items up to `}` (or the end of the text). */
  #body(path: Path, depth: number, until: "}" | "end"): Mapping {
    if (depth > MAX_DEPTH) {
      throw new HclFault(`blocks are nested more than ${MAX_DEPTH} deep`, this.#tokens.peek().at);
    }
    const result: Mapping = Object.create(null);
    for (;;) {
      const token = this.#tokens.skipNewlines();
      if (token.kind === "punctuation" && token.text === "}" && until === "}") {
        this.#tokens.next();
        return result;
      }
      if (token.kind === "end") {
        if (until === "}") {
          throw new HclFault("a `}` is missing: the text ends inside a block", token.at);
        }
        return result;
      }
      this.#item(result, path, depth);
      const after = this.#tokens.peek();
      if (after.kind === "punctuation" && after.text === ",") {
        this.#tokens.next();
      }
    }
  }

  /** `key = value`, `key { … }`, `key "label" { … }`. */
  #item(into: Mapping, path: Path, depth: number): void {
    const labels = [this.#key()];
    while (this.#tokens.peek().kind === "string" || this.#tokens.peek().kind === "word") {
      labels.push(this.#key());
    }
    let target = into;
    let here: Path = path;
    for (const label of labels.slice(0, -1)) {
      here = [...here, label.text];
      this.#mark(this.keyPlaces, here, label.at);
      this.#mark(this.valuePlaces, here, label.at);
      target = childMapping(target, label);
    }
    const last = labels.at(-1) as Token;
    here = [...here, last.text];
    this.#mark(this.keyPlaces, here, last.at);
    const sign = this.#tokens.peek();
    this.#mark(this.valuePlaces, here, sign.at);
    if (sign.text === "{" && sign.kind === "punctuation") {
      this.#tokens.next();
      merge(target, last, this.#body(here, depth + 1, "}"));
    } else if ((sign.text === "=" || sign.text === ":") && sign.kind === "punctuation" && labels.length === 1) {
      this.#tokens.next();
      const at = this.#tokens.skipNewlines().at;
      this.valuePlaces.set(formatPath(here), at);
      if (Object.hasOwn(target, last.text)) {
        throw new HclFault(`\`${last.text}\` is set twice`, last.at);
      }
      target[last.text] = this.#value(here, depth + 1);
    } else {
      throw new HclFault(
        `expected \`=\` or \`{\` after \`${last.text}\`, found \`${sign.text || "the end"}\``,
        sign.at,
      );
    }
  }

  #key(): Token {
    const token = this.#tokens.next();
    if (token.kind !== "word" && token.kind !== "string") {
      throw new HclFault(`expected a name, found \`${token.text || "the end"}\``, token.at);
    }
    return token;
  }

  #value(path: Path, depth: number): unknown {
    const token = this.#tokens.skipNewlines();
    this.#tokens.next();
    if (token.kind === "string") {
      return token.text;
    }
    if (token.kind === "number") {
      return Number(token.text);
    }
    if (token.kind === "word" && ["true", "false", "null"].includes(token.text)) {
      return token.text === "null" ? null : token.text === "true";
    }
    if (token.kind === "punctuation" && token.text === "{") {
      return this.#body(path, depth + 1, "}");
    }
    if (token.kind === "punctuation" && token.text === "[") {
      return this.#list(path, depth + 1);
    }
    throw new HclFault(`expected a value, found \`${token.text || "the end"}\``, token.at);
  }

  #list(path: Path, depth: number): unknown[] {
    if (depth > MAX_DEPTH) {
      throw new HclFault(`lists are nested more than ${MAX_DEPTH} deep`, this.#tokens.peek().at);
    }
    const items: unknown[] = [];
    for (;;) {
      const token = this.#tokens.skipNewlines();
      if (token.kind === "punctuation" && token.text === "]") {
        this.#tokens.next();
        return items;
      }
      const here = [...path, items.length];
      this.#mark(this.valuePlaces, here, token.at);
      items.push(this.#value(here, depth));
      const after = this.#tokens.skipNewlines();
      if (after.kind === "punctuation" && after.text === ",") {
        this.#tokens.next();
      } else if (!(after.kind === "punctuation" && after.text === "]")) {
        throw new HclFault("expected `,` or `]` in a list", after.at);
      }
    }
  }

  #mark(places: Map<string, number>, path: Path, at: number): void {
    const key = formatPath(path);
    if (!places.has(key)) {
      places.set(key, at);
    }
  }
}

function childMapping(parent: Mapping, label: Token): Mapping {
  const existing = parent[label.text];
  if (existing === undefined) {
    const made: Mapping = Object.create(null);
    parent[label.text] = made;
    return made;
  }
  if (typeof existing !== "object" || existing === null || Array.isArray(existing)) {
    throw new HclFault(`\`${label.text}\` is a block here and a value above`, label.at);
  }
  return existing as Mapping;
}

/** Blocks of one name are one mapping; a field that both have is a fault. */
function merge(target: Mapping, label: Token, body: Mapping): void {
  const existing = childMapping(target, label);
  for (const [key, value] of Object.entries(body)) {
    if (Object.hasOwn(existing, key)) {
      throw new HclFault(`\`${key}\` is set in two blocks \`${label.text}\``, label.at);
    }
    existing[key] = value;
  }
}

const WORD = /[A-Za-z_][A-Za-z0-9_.-]*/y;
const NUMBER = /[-+]?(0x[0-9a-fA-F]+|\d+(\.\d+)?([eE][-+]?\d+)?)/y;
const SPACE = /[ \t\r]+|#[^\n]*|\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
const HEREDOC = /<<(-?)([A-Za-z_]\w*)\n/y;

class Tokens {
  readonly #text: string;
  #at = 0;
  #ahead: Token | null = null;

  constructor(text: string) {
    this.#text = text;
  }

  peek(): Token {
    this.#ahead ??= this.#read();
    return this.#ahead;
  }

  next(): Token {
    const token = this.peek();
    this.#ahead = null;
    return token;
  }

  /** The next token that is no line's end. */
  skipNewlines(): Token {
    while (this.peek().kind === "newline") {
      this.next();
    }
    return this.peek();
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found !== null) {
      this.#at = pattern.lastIndex;
    }
    return found;
  }

  #read(): Token {
    while (this.#match(SPACE) !== null) {
      // Space and comments say nothing.
    }
    const at = this.#at;
    const char = this.#text[at];
    if (char === undefined) {
      return { kind: "end", text: "", at };
    }
    if (char === "\n") {
      this.#at++;
      return { kind: "newline", text: "\n", at };
    }
    if (char === '"') {
      return { kind: "string", text: this.#string(at), at };
    }
    if ("{}[]=,:".includes(char)) {
      this.#at++;
      return { kind: "punctuation", text: char, at };
    }
    const heredoc = this.#match(HEREDOC);
    if (heredoc !== null) {
      return { kind: "string", text: this.#heredoc(heredoc[2] ?? "", heredoc[1] === "-", at), at };
    }
    const number = this.#match(NUMBER);
    if (number !== null) {
      return { kind: "number", text: number[0], at };
    }
    const word = this.#match(WORD);
    if (word !== null) {
      return { kind: "word", text: word[0], at };
    }
    throw new HclFault(`unexpected \`${char}\``, at);
  }

  /** A quoted string. `${…}` stays as it is: SPIRE expands the environment before it parses, and only when told to. */
  #string(start: number): string {
    let end = start + 1;
    while (this.#text[end] !== '"') {
      if (this.#text[end] === undefined || this.#text[end] === "\n") {
        throw new HclFault('a closing `"` is missing', start);
      }
      end += this.#text[end] === "\\" ? 2 : 1;
    }
    this.#at = end + 1;
    try {
      return JSON.parse(this.#text.slice(start, end + 1)) as string;
    } catch {
      throw new HclFault("a string with an escape that is not known", start);
    }
  }

  #heredoc(marker: string, indented: boolean, start: number): string {
    const lines: string[] = [];
    for (;;) {
      if (this.#at >= this.#text.length) {
        throw new HclFault(`the heredoc's closing \`${marker}\` is missing`, start);
      }
      const newline = this.#text.indexOf("\n", this.#at);
      const end = newline < 0 ? this.#text.length : newline;
      const line = this.#text.slice(this.#at, end);
      this.#at = newline < 0 ? end : end + 1;
      if (line.trim() === marker) {
        const indent = indented
          ? Math.min(...lines.filter((each) => each.trim() !== "").map((each) => each.search(/\S/)))
          : 0;
        return lines.map((each) => `${each.slice(Number.isFinite(indent) ? indent : 0)}\n`).join("");
      }
      lines.push(line);
    }
  }
}
