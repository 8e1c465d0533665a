/**
 * Blocks `keyManager` and `signer` of the server's configuration: where the keys are that sign for the trust domain, and what
 * their signer never goes beyond.
 */
import { resolve } from "node:path";
import { boolean, duration, integer, object, oneOf, optional, required, string } from "../core/base/validate.ts";
import type { Ceilings, KeyPlace } from "../identity/intent/intent.ts";

const path = string({ what: "a path" });

export const keyManagerShape = object({
  kind: required(oneOf("disk", "memory", "pkcs11")),
  dir: optional(path),
  module: optional(path),
  tokenLabel: optional(string()),
  pinFile: optional(path),
});

export const signerShape = object({
  maxX509SvidTtl: optional(duration(1_000)),
  maxJwtSvidTtl: optional(duration(1_000)),
  maxPerSecond: optional(integer(1, 1_000_000)),
  downstream: optional(boolean()),
});

type GivenKeys = NonNullable<ReturnType<typeof keyManagerShape.read>>;
type GivenSigner = NonNullable<ReturnType<typeof signerShape.read>>;

const FIELDS: Readonly<
  Record<GivenKeys["kind"], { readonly needed: readonly string[]; readonly more: readonly string[] }>
> = {
  disk: { needed: [], more: ["dir"] },
  memory: { needed: [], more: [] },
  pkcs11: { needed: ["module", "tokenLabel", "pinFile"], more: ["dir"] },
};

/** What is missing, and what means nothing with the kind. */
export function keyManagerFaults(
  given: GivenKeys | undefined,
): readonly { readonly field: string; readonly message: string }[] {
  const { kind = "disk", ...fields } = given ?? {};
  const { needed, more } = FIELDS[kind];
  const missing = needed.filter((field) => !Object.hasOwn(fields, field));
  const idle = Object.keys(fields).filter((field) => !needed.includes(field) && !more.includes(field));
  return [
    ...missing.map((field) => ({ field: "kind", message: `\`kind: ${kind}\` needs \`${field}\`` })),
    ...idle.map((field) => ({ field, message: `\`${field}\` means nothing with \`kind: ${kind}\`` })),
  ];
}

/** With absolute paths; complete where `keyManagerFaults` found nothing. */
export function keyPlace(given: GivenKeys | undefined, baseDir: string, dataDir: string): KeyPlace {
  const { kind = "disk", dir, module = "", tokenLabel = "", pinFile = "" } = given ?? {};
  const folder = dir === undefined ? resolve(dataDir, "keys") : resolve(baseDir, dir);
  switch (kind) {
    case "disk":
      return { kind, dir: folder };
    case "memory":
      return { kind };
    case "pkcs11":
      return { kind, dir: folder, module: resolve(baseDir, module), tokenLabel, pinFile: resolve(baseDir, pinFile) };
  }
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
