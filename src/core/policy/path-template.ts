/**
 * Path templates: `{*}` is one segment of at least one byte, `{**}` any number of bytes over slashes.
 * SOURCE: istio pkg/config/security/security.go CheckValidPathTemplate; envoy source/extensions/path/uri_template_lib.
 */
import { RadixTree } from "../base/radix.ts";

const ONE = "{*}";
const ANY = "{**}";

/** pchar of RFC 3986 without `*`: what Istio's admission lets stand between templates. */
const LITERAL = /^[a-zA-Z0-9\-._~%!$&'()+,;:@=]+$/;

export const isTemplate = (path: string): boolean => path.includes(ONE) || path.includes(ANY);

/** Why a path of a policy is not valid, or null. */
export function pathFault(path: string): string | null {
  const template = isTemplate(path);
  let any = false;
  for (const segment of path.replace(/^\/+|\/+$/g, "").split("/")) {
    if (segment === ONE || segment === ANY) {
      if (any) {
        return "`{**}` must be the last operator";
      }
      any = segment === ANY;
      continue;
    }
    if (segment.includes("{") || segment.includes("}")) {
      return "`{` and `}` are only for the operators `{*}` and `{**}`, which are whole segments";
    }
    if (template && !LITERAL.test(segment)) {
      return segment === ""
        ? "a template cannot have an empty segment"
        : `\`${segment}\` has a character that a template cannot have`;
    }
  }
  // Istio's admission lets these pass, and Envoy then aborts on them.
  if (template && (!path.startsWith("/") || path.startsWith("//") || path.endsWith("//"))) {
    return "a template starts with one slash and has no empty segments";
  }
  return null;
}

/** A literal text, one segment, or anything. */
type Part = string | typeof ONE | typeof ANY;

/** Matches a path (without its query) against a template; linear in the path, no backtracking. */
export class PathTemplate {
  readonly #parts: readonly Part[];
  /** What every path that matches starts with. */
  readonly literalPrefix: string;

  constructor(template: string) {
    this.#parts = template.split(/(\{\*\*?\})/).filter((part) => part !== "");
    this.literalPrefix = template.slice(0, template.search(/\{\*/));
  }

  matches(path: string): boolean {
    let at = 0;
    for (let index = 0; index < this.#parts.length; index++) {
      const part = this.#parts[index]!;
      if (part === ANY) {
        // The last operator: what follows is literal and at the end.
        const rest = this.#parts[index + 1] ?? "";
        return (
          path.length - rest.length >= at && path.endsWith(rest) && isText(path, at, path.length - rest.length, true)
        );
      }
      if (part === ONE) {
        const slash = path.indexOf("/", at);
        const end = slash === -1 ? path.length : slash;
        if (end === at || !isText(path, at, end, false)) {
          return false;
        }
        at = end;
      } else if (path.startsWith(part, at)) {
        at += part.length;
      } else {
        return false;
      }
    }
    return at === path.length;
  }
}

/** Templates of which one must match, found by their literal beginnings, however many there are. */
export class TemplateSet {
  readonly #templates: readonly PathTemplate[];
  readonly #byPrefix = new RadixTree();
  #path = "";
  #found = false;

  constructor(values: readonly string[]) {
    this.#templates = values.map((value) => new PathTemplate(value));
    for (const [index, { literalPrefix }] of this.#templates.entries()) {
      this.#byPrefix.add(literalPrefix, index);
    }
  }

  /** HOT: no allocation. */
  matches(path: string): boolean {
    if (this.#templates.length === 0) {
      return false;
    }
    this.#path = path;
    this.#found = false;
    this.#byPrefix.visit(path, this);
    return this.#found;
  }

  visit(ids: readonly number[]): void {
    for (let index = 0; index < ids.length && !this.#found; index++) {
      this.#found = this.#templates[ids[index]!]!.matches(this.#path);
    }
  }
}

/** Per byte: 1 where a segment may have it, 2 where only `{**}` may. */
const CLASS = new Uint8Array(128);
for (const char of "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()+,;:@=*") {
  CLASS[char.charCodeAt(0)] = 1;
}
CLASS["/".charCodeAt(0)] = 2;

function isText(path: string, from: number, to: number, slashes: boolean): boolean {
  for (let at = from; at < to; at++) {
    const kind = CLASS[path.charCodeAt(at)] ?? 0;
    if (kind === 0 || (kind === 2 && !slashes)) {
      return false;
    }
  }
  return true;
}
