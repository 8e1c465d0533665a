/**
 * Path normalisation as Envoy does it for Istio's `meshConfig.pathNormalization`. What comes out is both decided on and
 * forwarded (INVARIANT 3). Works on wire strings: one character per byte, as HTTP delivers them.
 */
export type PathNormalization = "NONE" | "BASE" | "MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES";

export const PATH_NORMALIZATIONS: readonly PathNormalization[] = [
  "NONE",
  "BASE",
  "MERGE_SLASHES",
  "DECODE_AND_MERGE_SLASHES",
];

const SLASH = 0x2f;
const DOT = 0x2e;
const PERCENT = 0x25;
const BACKSLASH = 0x5c;

/** Per byte: kept as it is · needs a closer look (`.`, `%`, `\`) · is written as an escape. */
const KEEP = 0;
const LOOK = 1;
const ESCAPE = 2;

const TREATMENT = new Uint8Array(128).fill(KEEP);
for (let byte = 0; byte < 0x21; byte++) {
  TREATMENT[byte] = ESCAPE;
}
for (const char of '"<>^`{|}\x7f#?') {
  TREATMENT[char.charCodeAt(0)] = ESCAPE;
}
for (const char of ".%\\") {
  TREATMENT[char.charCodeAt(0)] = LOOK;
}

/**
 * The request target as it is decided on and forwarded (with its query, without a fragment), or null where the request
 * must be refused with 400. HOT: a path with nothing to normalise is returned as it came.
 */
export function normalizePath(target: string, mode: PathNormalization): string | null {
  for (let at = 0; at < target.length; at++) {
    const byte = target.charCodeAt(at);
    if (byte <= 0x20 || byte >= 0x7f) {
      return null;
    }
  }
  const cut = target.indexOf("#");
  const whole = cut === -1 ? target : target.slice(0, cut);
  const query = whole.indexOf("?");
  const end = query === -1 ? whole.length : query;
  if (mode === "NONE" || whole.charCodeAt(0) !== SLASH || isNormal(whole, end)) {
    return whole;
  }
  const decoded = mode === "DECODE_AND_MERGE_SLASHES" ? decodeSlashes(whole.slice(0, end)) : whole.slice(0, end);
  let path = canonicalize(dropDotParameters(decoded, mode === "DECODE_AND_MERGE_SLASHES"));
  if (path !== null && mode !== "BASE") {
    path = mergeSlashes(path);
  }
  return path === null ? null : path + whole.slice(end);
}

/** HOT: true where no mode would change the first `end` characters. */
function isNormal(path: string, end: number): boolean {
  let last = 0;
  for (let at = 0; at < end; at++) {
    const byte = path.charCodeAt(at);
    if (TREATMENT[byte] !== KEEP) {
      // A dot is a matter only at the start of a segment.
      if (byte !== DOT || last === SLASH) {
        return false;
      }
    }
    if (byte === SLASH && last === SLASH) {
      return false;
    }
    last = byte;
  }
  return true;
}

const decodeSlashes = (path: string): string => path.replace(/%2f/gi, "/").replace(/%5c/gi, "\\");

/**
 * `/a/..;x=1/b` → `/a/../b`: parameters of raw dot segments go (those of encoded ones stay), as Envoy 1.40 does it.
 * `/..;/admin` stays under DECODE_AND_MERGE_SLASHES, where Istio's vectors want it kept and there is nothing to climb to.
 */
function dropDotParameters(path: string, keepFirst: boolean): string {
  if (!path.includes("/.;") && !path.includes("/..;")) {
    return path;
  }
  const segments = path.split("/");
  return segments
    .map((segment, index) => (keepFirst && index === 1 && segment === "..;" ? segment : withoutDotParameter(segment)))
    .join("/");
}

function withoutDotParameter(segment: string): string {
  return segment.startsWith("..;") ? ".." : segment.startsWith(".;") ? "." : segment;
}

/** RFC 3986 dot segments, `\` as `/`, unreserved escapes decoded, illegal bytes escaped; null for an encoded NUL. */
function canonicalize(path: string): string | null {
  const out: number[] = [];
  // Where a lone `%` was written last: decoding right behind it must not make it an escape.
  let lonePercent = Number.NEGATIVE_INFINITY;
  let at = 0;
  while (at < path.length) {
    const byte = path.charCodeAt(at);
    const treatment = TREATMENT[byte];
    if (treatment === KEEP) {
      out.push(byte);
      at++;
      continue;
    }
    if (treatment === ESCAPE) {
      pushEscape(out, byte);
      at++;
      continue;
    }
    const dot = dotLength(path, at);
    if (dot > 0) {
      at = readDot(path, at, dot, out);
    } else if (byte === BACKSLASH) {
      out.push(SLASH);
      at++;
    } else {
      const value = escapeValue(path.charCodeAt(at + 1), path.charCodeAt(at + 2));
      if (value === 0) {
        return null;
      }
      if (value === -1) {
        lonePercent = out.length;
        out.push(PERCENT);
        at++;
        continue;
      }
      if (isUnreserved(value)) {
        out.push(value);
        at += 3;
        at += guardNestedEscape(path, at, lonePercent, out);
      } else {
        out.push(PERCENT, path.charCodeAt(at + 1), path.charCodeAt(at + 2));
        at += 3;
      }
    }
  }
  return String.fromCharCode(...out);
}

/** Length of a dot at `at`: 1 for `.`, 3 for `%2e`, 0 for none. */
function dotLength(path: string, at: number): number {
  const byte = path.charCodeAt(at);
  if (byte === DOT) {
    return 1;
  }
  return byte === PERCENT && escapeValue(path.charCodeAt(at + 1), path.charCodeAt(at + 2)) === DOT ? 3 : 0;
}

const isSlash = (byte: number): boolean => byte === SLASH || byte === BACKSLASH;

/** Handles the dot of `length` at `at`; returns where reading goes on. */
function readDot(path: string, at: number, length: number, out: number[]): number {
  if (out[out.length - 1] !== SLASH) {
    out.push(DOT);
    return at + length;
  }
  const afterFirst = at + length;
  if (afterFirst === path.length) {
    return afterFirst;
  }
  if (isSlash(path.charCodeAt(afterFirst))) {
    return afterFirst + 1;
  }
  const second = dotLength(path, afterFirst);
  if (second > 0) {
    const afterSecond = afterFirst + second;
    if (afterSecond === path.length || isSlash(path.charCodeAt(afterSecond))) {
      climb(out);
      return Math.min(afterSecond + 1, path.length);
    }
  }
  out.push(DOT);
  return afterFirst;
}

/** Takes the last segment away; the root stays. */
function climb(out: number[]): void {
  let at = out.length - 1;
  if (at === 0) {
    return;
  }
  at--;
  while (at > 0 && out[at] !== SLASH) {
    at--;
  }
  out.length = at + 1;
}

function pushEscape(out: number[], byte: number): void {
  out.push(PERCENT, hexDigit(byte >> 4), hexDigit(byte & 0xf));
}

const hexDigit = (value: number): number => "0123456789ABCDEF".charCodeAt(value);

/**
 * A byte was just decoded. Where it, with what follows, would turn an earlier lone `%` into an escape, that `%` becomes
 * `%25`. Returns how many further input characters that used.
 */
function guardNestedEscape(path: string, next: number, lonePercent: number, out: number[]): number {
  const distance = out.length - lonePercent;
  if (distance === 3) {
    const [first, second] = [out[lonePercent + 1] ?? 0, out[lonePercent + 2] ?? 0];
    if (escapeValue(first, second) !== -1) {
      out.length = lonePercent + 1;
      out.push(0x32, 0x35, first, second);
    }
    return 0;
  }
  if (distance === 2 && next < path.length) {
    const first = out[lonePercent + 1] ?? 0;
    const second = path.charCodeAt(next);
    if (escapeValue(first, second) !== -1) {
      out.length = lonePercent + 1;
      out.push(0x32, 0x35, first);
    }
  }
  return 0;
}

const hexValue = (byte: number): number =>
  byte >= 0x30 && byte <= 0x39
    ? byte - 0x30
    : byte >= 0x41 && byte <= 0x46
      ? byte - 0x37
      : byte >= 0x61 && byte <= 0x66
        ? byte - 0x57
        : -1;

function escapeValue(high: number, low: number): number {
  const [first, second] = [hexValue(high), hexValue(low)];
  return first === -1 || second === -1 ? -1 : first * 16 + second;
}

const isUnreserved = (byte: number): boolean =>
  (byte >= 0x30 && byte <= 0x39) ||
  (byte >= 0x41 && byte <= 0x5a) ||
  (byte >= 0x61 && byte <= 0x7a) ||
  byte === 0x2d ||
  byte === DOT ||
  byte === 0x5f ||
  byte === 0x7e;

/** `//` → `/`; a path of slashes only becomes `//`, as Envoy has it. */
function mergeSlashes(path: string): string {
  if (!path.includes("//")) {
    return path;
  }
  const last = path.endsWith("/") ? "/" : "";
  return `/${path
    .split("/")
    .filter((segment) => segment !== "")
    .join("/")}${last}`;
}
