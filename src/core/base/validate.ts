import { parseDurationMs } from "./duration.ts";
import type { Issue } from "./errors.ts";
import { suggest } from "./suggest.ts";
import type { Path, YamlDocument } from "./yaml.ts";

/**
 * Shapes for configuration documents: parse once at the edge, then carry the typed value. Every fault is collected with
 * its place; an unknown field is a fault with "did you mean".
 *
 * const shape = object({ trustDomain: required(string()), services: optional(record(service)) });
 * const { value, issues } = validate(shape, document);
 */
export interface Shape<T> {
  /** The typed value, or undefined where a fault was reported. */
  read(value: unknown, at: Reader): T | undefined;
}

/** Where a shape reads, and where it reports. */
export interface Reader {
  readonly path: Path;
  fault(message: string, hint?: string): undefined;
  into(step: string | number): Reader;
  /** Reports at the key itself (an unknown field). */
  keyFault(key: string, message: string, hint?: string): undefined;
}

interface Field<T> {
  readonly shape: Shape<T>;
  readonly required: boolean;
}

export interface Validated<T> {
  /** Present only where no issue is an error. */
  readonly value: T | undefined;
  readonly issues: readonly Issue[];
}

export function validate<T>(shape: Shape<T>, document: YamlDocument, code = "config-invalid"): Validated<T> {
  const issues: Issue[] = [];
  const value = shape.read(document.value, reader(document, [], code, issues));
  return { value: issues.length === 0 ? value : undefined, issues };
}

function reader(document: YamlDocument, path: Path, code: string, issues: Issue[]): Reader {
  const report = (place: object, message: string, hint?: string): undefined => {
    issues.push({ code, severity: "error", message, ...place, ...(hint === undefined ? {} : { hint }) });
    return undefined;
  };
  return {
    path,
    fault: (message, hint) => report(document.place(path), message, hint),
    keyFault: (key, message, hint) => report(document.keyPlace([...path, key]), message, hint),
    into: (step) => reader(document, [...path, step], code, issues),
  };
}

const describe = (value: unknown): string =>
  value === null
    ? "nothing"
    : Array.isArray(value)
      ? "a list"
      : typeof value === "object"
        ? "a mapping"
        : `\`${value}\``;

export function required<T>(shape: Shape<T>): { shape: Shape<T>; required: true } {
  return { shape, required: true };
}

export function optional<T>(shape: Shape<T>): { shape: Shape<T>; required: false } {
  return { shape, required: false };
}

type ObjectOf<F extends Record<string, Field<unknown>>> = {
  readonly [K in keyof F as F[K] extends { required: true } ? K : never]: F[K] extends Field<infer T> ? T : never;
} & {
  readonly [K in keyof F as F[K] extends { required: true } ? never : K]?: F[K] extends Field<infer T> ? T : never;
};

/** A mapping with these fields and no others. */
export function object<F extends Record<string, Field<unknown>>>(fields: F): Shape<ObjectOf<F>> {
  return {
    read(value, at) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        return at.fault(`expected a mapping, found ${describe(value)}`);
      }
      const given = value as Record<string, unknown>;
      const result: Record<string, unknown> = {};
      for (const key of Object.keys(given)) {
        const field = Object.hasOwn(fields, key) ? fields[key] : undefined;
        if (field === undefined) {
          const near = suggest(key, Object.keys(fields));
          at.keyFault(
            key,
            `unknown field \`${key}\``,
            near === null ? `known are: ${Object.keys(fields).join(", ")}` : `did you mean \`${near}\`?`,
          );
        } else if (given[key] !== null || field.required) {
          result[key] = field.shape.read(given[key], at.into(key));
        }
      }
      for (const [key, field] of Object.entries(fields)) {
        if (field.required && !Object.hasOwn(given, key)) {
          at.into(key).fault(`\`${key}\` is missing`);
        }
      }
      return result as ObjectOf<F>;
    },
  };
}

export function string(options: { pattern?: RegExp; what?: string } = {}): Shape<string> {
  return {
    read(value, at) {
      if (typeof value !== "string") {
        return at.fault(
          `expected ${options.what ?? "text"}, found ${describe(value)}`,
          typeof value === "number" ? "put it in quotes" : undefined,
        );
      }
      if (options.pattern !== undefined && !options.pattern.test(value)) {
        return at.fault(`\`${value}\` is not ${options.what ?? `of the form ${options.pattern.source}`}`);
      }
      return value;
    },
  };
}

export function oneOf<const T extends string>(...words: readonly T[]): Shape<T> {
  return {
    read(value, at) {
      if (typeof value === "string" && (words as readonly string[]).includes(value)) {
        return value as T;
      }
      const near = typeof value === "string" ? suggest(value, words) : null;
      return at.fault(
        `expected one of ${words.join(", ")}, found ${describe(value)}`,
        near === null ? undefined : `did you mean \`${near}\`?`,
      );
    },
  };
}

export function boolean(): Shape<boolean> {
  return {
    read: (value, at) =>
      typeof value === "boolean" ? value : at.fault(`expected true or false, found ${describe(value)}`),
  };
}

export function integer(min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER): Shape<number> {
  return {
    read(value, at) {
      if (typeof value !== "number" || !Number.isInteger(value)) {
        return at.fault(`expected a whole number, found ${describe(value)}`);
      }
      return value >= min && value <= max ? value : at.fault(`${value} is not between ${min} and ${max}`);
    },
  };
}

export const port = (): Shape<number> => integer(1, 65_535);

/** A duration such as `1h30m`, as milliseconds. */
export function duration(minMs = 1): Shape<number> {
  return {
    read(value, at) {
      const ms = typeof value === "string" ? parseDurationMs(value) : null;
      if (ms === null) {
        return at.fault(`expected a duration, found ${describe(value)}`, "write it as `90s`, `5m` or `1h30m`");
      }
      return ms >= minMs ? ms : at.fault(`\`${value}\` is too short`);
    },
  };
}

export function list<T>(item: Shape<T>, options: { min?: number } = {}): Shape<readonly T[]> {
  return {
    read(value, at) {
      if (!Array.isArray(value)) {
        return at.fault(`expected a list, found ${describe(value)}`);
      }
      if (value.length < (options.min ?? 0)) {
        return at.fault(`needs at least ${options.min} item`);
      }
      return value.map((element, index) => item.read(element, at.into(index))) as T[];
    },
  };
}

/** One, or a list of at least one. */
export function oneOrMany<T>(item: Shape<T>): Shape<readonly T[]> {
  const many = list(item, { min: 1 });
  return {
    read(value, at) {
      if (Array.isArray(value)) {
        return many.read(value, at);
      }
      const one = item.read(value, at);
      return one === undefined ? undefined : [one];
    },
  };
}

/** A mapping from free names to values of one shape. */
export function record<T>(item: Shape<T>, key?: { pattern: RegExp; what: string }): Shape<Readonly<Record<string, T>>> {
  return {
    read(value, at) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        return at.fault(`expected a mapping, found ${describe(value)}`);
      }
      const result: Record<string, T> = Object.create(null);
      for (const [name, element] of Object.entries(value)) {
        if (key !== undefined && !key.pattern.test(name)) {
          at.keyFault(name, `\`${name}\` is not ${key.what}`);
          continue;
        }
        result[name] = item.read(element, at.into(name)) as T;
      }
      return result;
    },
  };
}

/** Any value, unchecked; another parser reads it. */
export function anything(): Shape<unknown> {
  return { read: (value) => value };
}

/** A further condition, or a change of type, on top of a shape. `refine` reports by returning an error's message. */
export function refined<T, U>(shape: Shape<T>, refine: (value: T, at: Reader) => U | undefined): Shape<U> {
  return {
    read(value, at) {
      const inner = shape.read(value, at);
      return inner === undefined ? undefined : refine(inner, at);
    },
  };
}
