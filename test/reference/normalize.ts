/** Path normalisation, one step after the other as the documents tell it. Text is wire text: one character per byte. */

type Mode = "NONE" | "BASE" | "MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES";

/** The path with its query as decided on and forwarded; null where the request is answered 400. */
export function normalizeSlowly(target: string, mode: Mode): string | null {
  if (!/^[\x21-\x7e]*$/.test(target)) {
    return null;
  }
  const whole = target.replace(/#.*$/s, "");
  const [path = ""] = whole.split("?", 1);
  const query = whole.slice(path.length);
  if (mode === "NONE" || !path.startsWith("/")) {
    return whole;
  }
  const slashes = mode === "DECODE_AND_MERGE_SLASHES" ? path.replace(/%2f/gi, "/").replace(/%5c/gi, "\\") : path;
  const decoded = decode(withoutDotParameters(slashes, mode).replaceAll("\\", "/"));
  if (decoded === null) {
    return null;
  }
  const resolved = withoutDotSegments(decoded);
  return (mode === "BASE" ? resolved : merged(resolved)) + query;
}

/** A raw `..;x` or `.;x` right behind a slash is a dot segment. (Istio's vectors keep a `/..;/` that begins a path.) */
function withoutDotParameters(path: string, mode: Mode): string {
  return path
    .split("/")
    .map((segment, at) =>
      mode === "DECODE_AND_MERGE_SLASHES" && at === 1 && segment === "..;"
        ? segment
        : segment.replace(/^(\.\.?);.*$/s, "$1"),
    )
    .join("/");
}

const hex = (byte: number): string => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;

/**
 * Unreserved characters are decoded, what is not legal in a path is escaped, other escapes stay. A lone `%` stays, but
 * where decoding made an escape of it and what follows, it is escaped. An encoded NUL is refused.
 */
function decode(path: string): string | null {
  const parts: { readonly text: string; readonly lone?: true }[] = [];
  for (let at = 0; at < path.length; ) {
    const [escaped] = /^%[0-9A-Fa-f]{2}/.exec(path.slice(at)) ?? [];
    if (escaped === "%00") {
      return null;
    }
    const char =
      escaped === undefined ? (path[at] as string) : String.fromCharCode(Number.parseInt(escaped.slice(1), 16));
    if (escaped !== undefined) {
      parts.push({ text: /[A-Za-z0-9\-._~]/.test(char) ? char : escaped });
      at += 3;
      continue;
    }
    if (char === "%") {
      parts.push({ text: char, lone: true });
    } else {
      parts.push({ text: /["<>^`{|}]/.test(char) ? hex(char.charCodeAt(0)) : char });
    }
    at++;
  }
  return parts
    .map(({ text, lone }, at) => {
      const next = `${parts[at + 1]?.text ?? ""} ${parts[at + 2]?.text ?? ""}`;
      return lone && /^[0-9A-Fa-f] [0-9A-Fa-f]$/.test(next) ? "%25" : text;
    })
    .join("");
}

/** SPEC: RFC 3986 §5.2.4. */
function withoutDotSegments(path: string): string {
  const segments = path.split("/").slice(1);
  const kept: string[] = [];
  for (const [at, segment] of segments.entries()) {
    const last = at === segments.length - 1;
    if (segment === "..") {
      kept.pop();
    } else if (segment !== ".") {
      kept.push(segment);
    }
    if (last && (segment === "." || segment === "..")) {
      kept.push("");
    }
  }
  return `/${kept.join("/")}`;
}

/** Runs of slashes become one; a path of slashes alone (two or more) becomes `//`. */
const merged = (path: string): string => (/^\/\/+$/.test(path) ? "//" : path.replace(/\/\/+/g, "/"));
