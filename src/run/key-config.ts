/**
 * Blocks `keyManager` and `signer` of the server's configuration: where the keys are that sign for the trust domain, and what
 * their signer never goes beyond.
 */
import { resolve } from "node:path";
import { boolean, duration, integer, object, oneOf, optional, required, string } from "../core/base/validate.ts";
import type { Ceilings, KeyPlace } from "../identity/intent/intent.ts";

const path = string({ what: "a path" });

export const keyManagerShape = object({
  kind: required(oneOf("disk", "memory")),
  dir: optional(path),
});

export const signerShape = object({
  maxX509SvidTtl: optional(duration(1_000)),
  maxJwtSvidTtl: optional(duration(1_000)),
  maxPerSecond: optional(integer(1, 1_000_000)),
  downstream: optional(boolean()),
});

type GivenKeys = NonNullable<ReturnType<typeof keyManagerShape.read>>;
type GivenSigner = NonNullable<ReturnType<typeof signerShape.read>>;

/** Fields that mean nothing with the kind. */
export function keyManagerFaults(
  given: GivenKeys | undefined,
): readonly { readonly field: string; readonly message: string }[] {
  const dir = given?.kind === "memory" && given.dir !== undefined;
  return dir ? [{ field: "dir", message: "`dir` means nothing with `kind: memory`" }] : [];
}

/** With absolute paths. */
export function keyPlace(given: GivenKeys | undefined, baseDir: string, dataDir: string): KeyPlace {
  const { kind = "disk", dir } = given ?? {};
  return kind === "memory"
    ? { kind }
    : { kind, dir: dir === undefined ? resolve(dataDir, "keys") : resolve(baseDir, dir) };
}

const DAY = 86_400_000;
/** More than two cores can sign: a ceiling for who has taken over the server, not a throttle. */
const MAX_PER_SECOND = 10_000;

export function ceilings(given: GivenSigner | undefined, caTtlMs = DAY): Ceilings {
  const {
    maxX509SvidTtl = caTtlMs,
    maxJwtSvidTtl = caTtlMs,
    maxPerSecond = MAX_PER_SECOND,
    downstream = true,
  } = given ?? {};
  return {
    maxX509SvidTtlMs: maxX509SvidTtl,
    maxJwtSvidTtlMs: maxJwtSvidTtl,
    maxCaTtlMs: caTtlMs,
    maxPerSecond,
    downstream,
  };
}
