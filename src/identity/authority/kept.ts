import { EveryhopError } from "../../core/base/errors.ts";
import { isRecord } from "../../core/jose/jwk.ts";
import type { KeyStore } from "../../io/keys.ts";
import type { SlotState } from "./slots.ts";

/** What is kept of a slot; the key lies beside it under `keyName`. */
export interface KeptSlot {
  readonly id: string;
  readonly state: SlotState;
  readonly tainted: boolean;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
}

/** All that must survive a restart besides the keys. */
export interface KeptAuthorities {
  readonly sequence: bigint;
  readonly x509: readonly KeptSlot[];
  readonly jwt: readonly KeptSlot[];
}

const DOCUMENT = "authorities.json";

export function keyName(kind: "x509" | "jwt", id: string): string {
  return `${kind}-${id}.pem`;
}

/** Reads the document; null where there is none yet. Errors: `storage-failed` where it is damaged. */
export async function readKept(keys: KeyStore): Promise<KeptAuthorities | null> {
  const bytes = await keys.read(DOCUMENT);
  if (bytes === null) {
    return null;
  }
  try {
    const document: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (!isRecord(document) || document.format !== 1 || typeof document.sequence !== "string") {
      throw new Error("unknown format");
    }
    return { sequence: BigInt(document.sequence), x509: keptSlots(document.x509), jwt: keptSlots(document.jwt) };
  } catch (cause) {
    throw new EveryhopError("storage-failed", "the record of signing keys (`authorities.json`) is damaged", {
      cause,
      hint: "restore the key folder from a backup; or remove it, and every workload joins a new trust domain authority",
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
    const { id, state, tainted, issuedAtMs, notAfterMs } = slot;
    const known = state === "prepared" || state === "active" || state === "old";
    if (typeof id !== "string" || !known || typeof issuedAtMs !== "number" || typeof notAfterMs !== "number") {
      throw new Error("a slot lacks a member");
    }
    return { id, state, tainted: tainted === true, issuedAtMs, notAfterMs };
  });
}

export async function writeKept(keys: KeyStore, kept: KeptAuthorities): Promise<void> {
  const document = { format: 1, ...kept, sequence: kept.sequence.toString() };
  await keys.write(DOCUMENT, Buffer.from(`${JSON.stringify(document, null, 2)}\n`));
}

/** Removes keys that no slot names: a crash between writing one and recording it leaves such. */
export async function removeStrays(keys: KeyStore, kept: KeptAuthorities): Promise<void> {
  const known = new Set([
    ...kept.x509.map(({ id }) => keyName("x509", id)),
    ...kept.jwt.map(({ id }) => keyName("jwt", id)),
  ]);
  for (const name of await keys.list()) {
    if (/^(x509|jwt)-.*\.pem$/.test(name) && !known.has(name)) {
      await keys.remove(name);
    }
  }
}
