/** INVARIANT: a key signs nothing but the bytes of a permit, once; and a permit is made for linted bytes alone. */
import { hash } from "node:crypto";
import { EveryhopError } from "../../core/base/errors.ts";
import type { KeyType } from "../intent/key-type.ts";
import type { RawKey } from "./vault.ts";

const made = Symbol("made by permitFor");

/** The right to one signature over certain bytes. */
export class SigningPermit {
  readonly digest: string;
  #bytes: Uint8Array | null;

  constructor(secret: symbol, bytes: Uint8Array) {
    if (secret !== made) {
      throw new EveryhopError("internal", "a signing permit is made by `permitFor` alone");
    }
    this.digest = hash("sha256", bytes, "hex");
    this.#bytes = bytes;
  }

  /** The bytes, once. */
  use(): Uint8Array {
    const bytes = this.#bytes;
    if (bytes === null) {
      throw new EveryhopError("internal", "a signing permit was used twice");
    }
    this.#bytes = null;
    return bytes;
  }
}

/**
 * Lints, and gives the permit to sign. INVARIANT: this is the only way to a permit. `lint` lists what is wrong with the bytes.
 * Errors: `internal` where it finds a fault: a bug or an attack.
 */
export function permitFor(
  bytes: Uint8Array,
  name: string,
  lint: (bytes: Uint8Array) => readonly string[],
): SigningPermit {
  // What is signed is a copy that nobody else holds: not even the caller can change it between lint and signature.
  const own = Uint8Array.prototype.slice.call(bytes);
  const faults = lint(own);
  if (faults.length > 0) {
    throw new EveryhopError("internal", `refused to sign for \`${name}\`: ${faults.join("; ")}`);
  }
  return new SigningPermit(made, own);
}

/** A private key that signs permits only, and cannot be read out. */
export class SigningKey {
  readonly type: KeyType;
  readonly spki: Uint8Array;
  readonly #key: RawKey;

  constructor(key: RawKey) {
    this.type = key.type;
    this.spki = key.spki;
    this.#key = key;
  }

  /** The bytes of the permit, and the signature over them. */
  sign(permit: SigningPermit): { readonly bytes: Uint8Array; readonly signature: Uint8Array } {
    const bytes = permit.use();
    return { bytes, signature: this.#key.sign(bytes) };
  }
}
