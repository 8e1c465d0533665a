import { isAlias, isMap, isNode, isPair, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from "yaml";
import type { Issue, Place } from "./errors.ts";

/** Path into a document: keys and indices. */
export type Path = readonly (string | number)[];

/** One document of a YAML (or JSON) text as plain values, with the place of everything in it. */
export interface YamlDocument {
  readonly file: string | undefined;
  /** Position among the documents of the file, from 0. */
  readonly index: number;
  readonly value: unknown;
  /** The place of the value at `path`; of its nearest ancestor that is there, where it is missing. */
  place(path: Path): Place;
  /** The place of the key at `path` (its last element is the key's name). */
  keyPlace(path: Path): Place;
}

export interface YamlFile {
  readonly documents: readonly YamlDocument[];
  readonly issues: readonly Issue[];
}

/** Aliases expand at most this often: a "billion laughs" text is refused. */
const MAX_ALIASES = 100;

/** Parses every document of `text`. Empty documents are left out; duplicate keys and syntax errors are issues. */
export function parseYaml(text: string, file?: string): YamlFile {
  const lines = new LineCounter();
  const issues: Issue[] = [];
  const documents: YamlDocument[] = [];
  const place = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { ...(file === undefined ? {} : { file }), line, column: col };
  };
  // `merge`: `<<: *anchor`, as Kubernetes reads YAML.
  const parsed = parseAllDocuments(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false, merge: true });
  for (const [index, document] of (Array.isArray(parsed) ? parsed : []).entries()) {
    if (document.errors.length > 0) {
      for (const error of document.errors) {
        issues.push({ code: "yaml-syntax", severity: "error", message: error.message, ...place(error.pos[0]) });
      }
      continue;
    }
    let value: unknown;
    try {
      value = document.toJS({ maxAliasCount: MAX_ALIASES });
    } catch (error) {
      issues.push({ code: "yaml-syntax", severity: "error", message: (error as Error).message, ...place(0) });
      continue;
    }
    if (value === null || value === undefined) {
      continue;
    }
    const root = document.contents as Node | null;
    documents.push({
      file,
      index,
      value,
      place: (path) => ({ ...place(locate(root, path).valueAt), path: formatPath(path) }),
      keyPlace: (path) => ({ ...place(locate(root, path).keyAt), path: formatPath(path) }),
    });
  }
  return { documents, issues };
}

/** Offsets of the value at `path` and of its key, or of the deepest ancestor that exists. */
function locate(root: Node | null, path: Path): { valueAt: number; keyAt: number } {
  let node: unknown = root;
  let found = { valueAt: root?.range?.[0] ?? 0, keyAt: root?.range?.[0] ?? 0 };
  for (const step of path) {
    if (isAlias(node)) {
      return found;
    }
    if (isMap(node)) {
      const pair = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(step),
      );
      if (pair === undefined) {
        return found;
      }
      const keyAt = isNode(pair.key) ? (pair.key.range?.[0] ?? found.keyAt) : found.keyAt;
      const valueAt = isNode(pair.value) ? (pair.value.range?.[0] ?? keyAt) : keyAt;
      found = { valueAt, keyAt };
      node = pair.value;
    } else if (isSeq(node)) {
      const item: unknown = node.items[Number(step)];
      if (!isNode(item)) {
        return found;
      }
      found = { valueAt: item.range?.[0] ?? found.valueAt, keyAt: item.range?.[0] ?? found.keyAt };
      node = item;
    } else {
      return found;
    }
  }
  return found;
}

/** Writes a path as `spec.rules[0].to[0].operation.methods`. */
export function formatPath(path: Path): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") {
      text += `[${step}]`;
    } else if (/^[A-Za-z_][\w-]*$/.test(step)) {
      text += text === "" ? step : `.${step}`;
    } else {
      text += `[${JSON.stringify(step)}]`;
    }
  }
  return text;
}
