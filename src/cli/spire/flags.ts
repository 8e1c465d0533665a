/** Flags as Go's `flag` package reads them, with which SPIRE's users and scripts write them: `-name value`, `-name=value`, `--name`. */
import { suggest } from "../../core/base/suggest.ts";

/** A usage that is wrong: what a command of SPIRE's says on standard error, with exit code 1. */
export class UsageError extends Error {}

export interface Flag {
  readonly kind: "text" | "texts" | "flag";
  readonly what: string;
}

export type Flags = Readonly<Record<string, Flag>>;

export const text = (what: string): Flag => ({ kind: "text", what });
export const texts = (what: string): Flag => ({ kind: "texts", what });
export const flag = (what: string): Flag => ({ kind: "flag", what });

/** What was given. */
export class Given {
  readonly #texts = new Map<string, string[]>();
  readonly rest: readonly string[];

  constructor(flags: Flags, argv: readonly string[]) {
    const left = [...argv];
    for (let word = left[0]; word?.startsWith("-") && word !== "-"; word = left[0]) {
      left.shift();
      if (word === "--") {
        break;
      }
      const [name = "", ...value] = word.replace(/^--?/, "").split("=");
      this.#take(flags, name, value.length === 0 ? null : value.join("="), left);
    }
    this.rest = left;
  }

  #take(flags: Flags, name: string, value: string | null, left: string[]): void {
    const known = Object.hasOwn(flags, name) ? flags[name] : undefined;
    if (known === undefined) {
      const near = suggest(name, Object.keys(flags));
      const hint = near === null ? "" : `; did you mean \`-${near}\`?`;
      throw new UsageError(`flag provided but not defined: -${name}${hint}`);
    }
    const given = value ?? (known.kind === "flag" ? "true" : left.shift());
    if (given === undefined) {
      throw new UsageError(`flag needs an argument: -${name}`);
    }
    if (known.kind === "flag" && !/^(true|false|1|0|t|f|T|F|TRUE|FALSE|True|False)$/.test(given)) {
      throw new UsageError(`invalid boolean value "${given}" for -${name}`);
    }
    this.#texts.set(name, known.kind === "texts" ? [...(this.#texts.get(name) ?? []), given] : [given]);
  }

  has(name: string): boolean {
    return this.#texts.has(name);
  }

  /** Empty where it was not given. */
  text(name: string): string {
    return this.#texts.get(name)?.at(-1) ?? "";
  }

  texts(name: string): readonly string[] {
    return this.#texts.get(name) ?? [];
  }

  flag(name: string): boolean {
    return /^(true|1|t)$/i.test(this.text(name));
  }

  /** A whole number; 0 where it was not given. */
  number(name: string): number {
    const given = this.text(name) || "0";
    if (!/^-?\d{1,15}$/.test(given)) {
      throw new UsageError(`invalid value "${given}" for flag -${name}: parse error`);
    }
    return Number(given);
  }
}
