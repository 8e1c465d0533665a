import { hash, type KeyObject, sign } from "node:crypto";
import { EveryhopError } from "../../core/base/errors.ts";
import type { IssuanceIntent, Journal } from "./journal.ts";

const made = Symbol("made by intend");

/** The right to one signature over certain bytes. It exists only for bytes that were linted and intended in the journal. */
export class SigningPermit {
  readonly serial: string;
  #bytes: Uint8Array | null;

  constructor(secret: symbol, serial: string, bytes: Uint8Array) {
    if (secret !== made) {
      throw new EveryhopError("internal", "a signing permit is made by `intend` alone");
    }
    this.serial = serial;
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
 * Lints, writes the intent to the journal, and gives the permit to sign. INVARIANT: this is the only way to a permit.
 * `lint` lists what is wrong with the bytes. Errors: `internal` where lint finds a fault (a bug or an attack: say so loudly).
 */
export async function intend(
  bytes: Uint8Array,
  lint: (bytes: Uint8Array) => readonly string[],
  intent: Omit<IssuanceIntent, "digest">,
  journal: Journal,
): Promise<SigningPermit> {
  if (intent.entryId === "") {
    throw new EveryhopError("internal", `refused to sign for \`${intent.spiffeId}\` without a registration entry`);
  }
  // What is signed is a copy that nobody else holds: not even the caller can change it between lint and signature.
  const own = Uint8Array.prototype.slice.call(bytes);
  const faults = lint(own);
  if (faults.length > 0) {
    throw new EveryhopError("internal", `refused to sign for \`${intent.spiffeId}\`: ${faults.join("; ")}`);
  }
  await journal.intend({ ...intent, digest: hash("sha256", own, "hex") });
  return new SigningPermit(made, intent.serial, own);
}

/** Holds an ECDSA key that signs nothing without a permit, and cannot be read out. */
export class Signer {
  readonly #key: KeyObject;

  constructor(key: KeyObject) {
    this.#key = key;
  }

  /** The bytes of the permit, and the signature in DER. HOT: the key is passed bare, since options cost as much again. */
  sign(permit: SigningPermit): { readonly bytes: Uint8Array; readonly signature: Uint8Array } {
    const bytes = permit.use();
    return { bytes, signature: sign("sha256", bytes, this.#key) };
  }
}
