/** What survives a restart besides the keys, which are the signer's: which authority stands where, and how the bundle is numbered. */
import { EveryhopError } from "../../core/base/errors.ts";
import { isRecord } from "../../core/jose/jwk.ts";
import type { StateFile } from "../../io/state-file.ts";
import type { SlotState } from "./slots.ts";

export interface KeptSlot {
  readonly id: string;
  readonly state: SlotState;
  readonly tainted: boolean;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
  /** Of a CA its chain, of a JWT key its public half, in DER; null where an early version kept it with the key alone. */
  readonly published: readonly Uint8Array[] | null;
}

export interface KeptAuthorities {
  readonly sequence: bigint;
  readonly x509: readonly KeptSlot[];
  readonly jwt: readonly KeptSlot[];
}

/** Formats that can be read; the last is written. 1 kept no certificates. */
const FORMATS: readonly unknown[] = [1, 2];

/** Reads the document; null where there is none yet. Errors: `storage-failed` where it is damaged. */
export async function readKept(file: StateFile): Promise<KeptAuthorities | null> {
  const bytes = await file.read();
  if (bytes === null) {
    return null;
  }
  try {
    const document: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (!isRecord(document) || !FORMATS.includes(document.format) || typeof document.sequence !== "string") {
      throw new Error("unknown format");
    }
    return { sequence: BigInt(document.sequence), x509: keptSlots(document.x509), jwt: keptSlots(document.jwt) };
  } catch (cause) {
    throw new EveryhopError("storage-failed", "the record of signing keys (`authorities.json`) is damaged", {
      cause,
      hint: "restore the data folder from a backup; or remove it, and every workload joins a new trust domain authority",
    });
  }
}

function keptSlots(value: unknown): readonly KeptSlot[] {
  if (!Array.isArray(value)) {
    throw new Error("slots are missing");
  }
  return value.map((slot: unknown) => {
    if (!isRecord(slot)) {
      throw new Error("a slot is no object");
    }
    const { id, state, tainted, issuedAtMs, notAfterMs, published } = slot;
    const known = state === "prepared" || state === "active" || state === "old";
    if (typeof id !== "string" || !known || typeof issuedAtMs !== "number" || typeof notAfterMs !== "number") {
      throw new Error("a slot lacks a member");
    }
    const ders = Array.isArray(published) ? published.map((der) => Buffer.from(String(der), "base64")) : null;
    return { id, state, tainted: tainted === true, issuedAtMs, notAfterMs, published: ders };
  });
}

export async function writeKept(file: StateFile, kept: KeptAuthorities): Promise<void> {
  const document = {
    format: FORMATS.at(-1),
    sequence: kept.sequence.toString(),
    x509: kept.x509.map(written),
    jwt: kept.jwt.map(written),
  };
  await file.write(Buffer.from(`${JSON.stringify(document, null, 2)}\n`));
}

function written(slot: KeptSlot): object {
  return { ...slot, published: slot.published?.map((der) => Buffer.from(der).toString("base64")) };
}
