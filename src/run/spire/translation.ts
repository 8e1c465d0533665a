/**
 * From SPIRE's configuration to ours. A rule per key of SPIRE's file says what it becomes; what comes out is a document in the
 * words of our own file, whose places are those of SPIRE's: one shape checks both, and every message names the line as written.
 */
import { parseDurationMs } from "../../core/base/duration.ts";
import type { Issue, Severity } from "../../core/base/errors.ts";
import { suggest } from "../../core/base/suggest.ts";
import { formatPath, type Path, type YamlDocument } from "../../core/base/yaml.ts";

/** What one key of SPIRE's file becomes. */
export type Rule = (value: unknown, at: Source) => void;
export type Rules = Readonly<Record<string, Rule>>;

/** Where in SPIRE's file a rule reads, and where it writes and reports. */
export class Source {
  readonly path: Path;
  readonly #translation: Translation;

  constructor(translation: Translation, path: Path) {
    this.#translation = translation;
    this.path = path;
  }

  get key(): string {
    return String(this.path.at(-1) ?? "");
  }

  into(...steps: Path): Source {
    return new Source(this.#translation, [...this.path, ...steps]);
  }

  /** Sets a field of our document; a fault that is found in it is reported here. */
  set(target: Path, value: unknown): void {
    this.#translation.set(target, value, this.path);
  }

  error(message: string, hint?: string): void {
    this.#translation.report("error", this.path, message, hint);
  }

  /** Different here, and nothing to change about it. */
  info(message: string, hint?: string): void {
    this.#translation.report("info", this.path, message, hint);
  }

  /** Legal, and different here: the message says how. */
  warn(message: string, hint?: string): void {
    this.#translation.report("warning", this.path, message, hint);
  }
}

export class Translation {
  readonly issues: Issue[] = [];
  readonly #from: YamlDocument;
  readonly #value: Record<string, unknown> = {};
  readonly #origins = new Map<string, Path>();

  constructor(from: YamlDocument) {
    this.#from = from;
  }

  get root(): Source {
    return new Source(this, []);
  }

  set(target: Path, value: unknown, from: Path): void {
    let into = this.#value as Record<string | number, unknown>;
    for (const step of target.slice(0, -1)) {
      into[step] ??= {};
      into = into[step] as Record<string | number, unknown>;
    }
    into[target.at(-1) ?? ""] = value;
    this.#origins.set(formatPath(target), from);
  }

  report(severity: Severity, path: Path, message: string, hint?: string): void {
    const code = severity === "error" ? "config-invalid" : "spire-differs";
    this.issues.push({
      code,
      severity,
      message,
      ...this.#from.keyPlace(path),
      ...(hint === undefined ? {} : { hint }),
    });
  }

  /** What was set, with the places of SPIRE's file. */
  document(): YamlDocument {
    const { file, index } = this.#from;
    const place = (path: Path) => this.#from.place(this.#originOf(path));
    return { file, index, value: this.#value, place, keyPlace: place };
  }

  #originOf(path: Path): Path {
    for (let length = path.length; length > 0; length--) {
      const origin = this.#origins.get(formatPath(path.slice(0, length)));
      if (origin !== undefined) {
        return [...origin, ...path.slice(length)];
      }
    }
    return [];
  }
}

export type Block = Readonly<Record<string, unknown>>;

/** A block, or as HCL's JSON form has it a list of blocks, each with its place. */
export function blocks(value: unknown, at: Source): readonly (readonly [Block, Source])[] {
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => blocks(item, at.into(index)));
  }
  if (typeof value === "object" && value !== null) {
    return [[value as Block, at]];
  }
  at.error(`\`${at.key}\` is a block`, `write it as \`${at.key} { … }\``);
  return [];
}

/** Reads every key of a block by its rule; a key without one is an error. */
export function block(rules: Rules): Rule {
  return (value, at) => {
    for (const [given, here] of blocks(value, at)) {
      for (const [key, inner] of Object.entries(given)) {
        const rule = Object.hasOwn(rules, key) ? rules[key] : undefined;
        if (rule !== undefined) {
          rule(inner, here.into(key));
          continue;
        }
        const near = suggest(key, Object.keys(rules));
        const hint = near === null ? `known are: ${Object.keys(rules).join(", ")}` : `did you mean \`${near}\`?`;
        here.into(key).error(`unknown key \`${key}\``, hint);
      }
    }
  };
}

/** A key of SPIRE's that we know and do not act on: `what` says what is different here. */
export function differs(what: string, hint?: string): Rule {
  return (_value, at) => at.warn(`\`${at.key}\` is not used here: ${what}`, hint);
}

/** A key that asks for what we do anyway. */
export const granted: Rule = () => {};

/** Reads a value as HCL does, which takes `"5"` for 5 and `"true"` for true; undefined where a fault was reported. */
export function text(value: unknown, at: Source): string | undefined {
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
    return String(value);
  }
  at.error(`\`${at.key}\` has to be text`);
  return undefined;
}

export function flag(value: unknown, at: Source): boolean | undefined {
  if (value === true || value === "true") {
    return true;
  }
  if (value === false || value === "false") {
    return false;
  }
  at.error(`\`${at.key}\` has to be true or false`);
  return undefined;
}

export function whole(value: unknown, at: Source): number | undefined {
  const number = typeof value === "string" && /^\d+$/.test(value) ? Number(value) : value;
  if (typeof number === "number" && Number.isSafeInteger(number)) {
    return number;
  }
  at.error(`\`${at.key}\` has to be a whole number`);
  return undefined;
}

export function texts(value: unknown, at: Source): readonly string[] | undefined {
  const items = Array.isArray(value) ? value : [value];
  const read = items.map((item, index) => text(item, at.into(index)));
  return read.every((item) => item !== undefined) ? read : undefined;
}

export function duration(value: unknown, at: Source): string | undefined {
  const given = text(value, at);
  if (given === undefined || parseDurationMs(given) !== null) {
    return given;
  }
  at.error(`\`${given}\` is not a duration`, "write it as `90s`, `5m` or `1h30m`");
  return undefined;
}

type Reading<T> = (value: unknown, at: Source) => T | undefined;

/** The key becomes the field `target`, read by `read`. */
export function to<T>(target: Path, read: Reading<T>, change: (value: T) => unknown = (value) => value): Rule {
  return (value, at) => {
    const found = read(value, at);
    if (found !== undefined) {
      at.set(target, change(found));
    }
  };
}

/** The value at a key of a block (or of the first of a list of blocks that has it). */
export function valueAt(value: unknown, at: Source, key: string): readonly [unknown, Source] | null {
  const found = blocks(value, at).find(([given]) => Object.hasOwn(given, key));
  return found === undefined ? null : [found[0][key], found[1].into(key)];
}

/** `host:port`, from two keys of a block. */
export function hostPort(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
