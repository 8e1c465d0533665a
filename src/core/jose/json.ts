import { EveryhopError } from "../base/errors.ts";

/** As many as Envoy takes in a token. */
const MAX_DEPTH = 100;

function jsonError(what: string): EveryhopError {
  return new EveryhopError("invalid-argument", `malformed JSON: ${what}`);
}

/**
 * Parses JSON in which no object has the same key twice: two readers that each take another one of a doubled key are how a
 * check is gone around. Nesting is bounded. Whole numbers outside the safe range become bigint where `bigint` is set.
 * Errors: `invalid-argument`.
 */
export function parseStrictJson(text: string, options: { readonly bigint?: boolean } = {}): unknown {
  const value = parse(text, options.bigint ?? false);
  // JSON.parse has settled the grammar, so this scan only has to follow strings and brackets.
  refuseDoubledKeys(text);
  if (MAY_BE_UNREADABLE.test(text)) {
    refuseUnreadable(value);
  }
  return value;
}

/** Escapes of surrogates, and numbers that may be too large. */
const MAY_BE_UNREADABLE = /\\u[dD][89a-fA-F]|[eE]\+?0*\d{3}|\d{300}/;

/** Half a character and an infinite number are not what the sender wrote: another reader makes something else of them. */
function refuseUnreadable(value: unknown): void {
  if (typeof value === "string" ? !value.isWellFormed() : typeof value === "number" && !Number.isFinite(value)) {
    throw jsonError("a text or number that cannot be represented");
  }
  if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      refuseUnreadable(key);
      refuseUnreadable(inner);
    }
  }
}

/** The third argument of a reviver, which the type library does not know yet. */
type Reviver = (this: unknown, key: string, value: unknown, context: { readonly source?: string }) => unknown;

const exactIntegers: Reviver = (_key, value, { source }) =>
  typeof value === "number" && !Number.isSafeInteger(value) && source !== undefined && /^-?\d+$/.test(source)
    ? BigInt(source)
    : value;

function parse(text: string, bigint: boolean): unknown {
  try {
    return bigint ? JSON.parse(text, exactIntegers as (key: string, value: unknown) => unknown) : JSON.parse(text);
  } catch (cause) {
    throw new EveryhopError("invalid-argument", "malformed JSON", { cause });
  }
}

function refuseDoubledKeys(text: string): void {
  /** One entry per open bracket: the keys of an object, null for a list. */
  const open: (Set<string> | null)[] = [];
  let expectKey = false;
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === 0x22) {
      const end = endOfString(text, at);
      if (expectKey) {
        addKey(open.at(-1) ?? null, text.slice(at, end + 1));
        expectKey = false;
      }
      at = end;
    } else if (char === 0x7b || char === 0x5b) {
      if (open.length === MAX_DEPTH) {
        throw jsonError("nested too deeply");
      }
      expectKey = char === 0x7b;
      open.push(expectKey ? new Set() : null);
    } else if (char === 0x7d || char === 0x5d) {
      open.pop();
      expectKey = false;
    } else if (char === 0x2c) {
      expectKey = open.at(-1) !== null;
    }
  }
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; ; at++) {
    const char = text.charCodeAt(at);
    if (char === 0x5c) {
      at++;
    } else if (char === 0x22 || Number.isNaN(char)) {
      return at;
    }
  }
}

function addKey(keys: Set<string> | null, token: string): void {
  // Two spellings of one key ("a" and "\u0061") are the same key.
  const key: string = token.includes("\\") ? JSON.parse(token) : token.slice(1, -1);
  if (keys?.has(key)) {
    throw jsonError(`key \`${key.slice(0, 64)}\` comes twice`);
  }
  keys?.add(key);
}
