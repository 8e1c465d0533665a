/** `--jwks URI=FILE`: what a `jwksUri` says, from a file. The policy commands fetch nothing. */
import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { type Jwk, parseJwks } from "../core/jose/jwk.ts";
import type { KeySource } from "../core/policy/authenticate.ts";
import { readText } from "./policy-files.ts";

export interface JwksFlags {
  readonly jwks?: readonly string[];
}

export function jwksOption(command: Command): Command {
  return command.option(
    "--jwks <uri=file>",
    "the key set that a `jwksUri` names; nothing is fetched, so that without it its tokens are refused; may be repeated",
    (given: string, before: readonly string[] = []) => [...before, given],
  );
}

export function keySource({ jwks = [] }: JwksFlags): KeySource {
  const sets = new Map<string, readonly Jwk[]>(
    jwks.map((given) => {
      // A URL may have `=` in its query; a file hardly has.
      const at = given.lastIndexOf("=");
      if (at < 1) {
        throw new EveryhopError("usage", `\`${given}\` is not of the form URI=FILE`);
      }
      return [given.slice(0, at), parseJwks(readText(given.slice(at + 1))).keys];
    }),
  );
  return (uri) => sets.get(uri) ?? null;
}
