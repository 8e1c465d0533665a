/** The messages of the signer's socket in octets. Decoding is strict on both sides: bounded, and nothing left over. */
import { CODES, type Code } from "../../core/base/codes.ts";
import { EveryhopError, toEveryhopError } from "../../core/base/errors.ts";
import type { LogPage } from "../../io/chained-log/chained-log.ts";
import type { Ceilings, HeldKey, KeyPlace, KeyUse, Permit, SetUp, Setup } from "./intent.ts";
import { KEY_TYPES, type KeyType } from "./key-type.ts";
import { malformed, OctetReader, type OctetWriter } from "./octets.ts";

export const OPERATION = {
  setup: 1,
  createKey: 2,
  prepare: 3,
  sign: 4,
  adopt: 5,
  discard: 6,
  log: 7,
  /** Of the signer: the answer, or why there is none. */
  answer: 128,
  refused: 129,
} as const;

/** Items of one `prepare` or `sign`. */
export const MAX_BATCH = 500;
/** Octets that the items of one message take together, about; larger batches go in several. */
export const BATCH_BYTES = 1024 * 1024;
const MAX_KEYS = 1_000;
const MAX_NAME = 4_096;
export const MAX_DER = 64 * 1024;
const MAX_CHAIN = 10;
export const MAX_LOG_PAGE_BYTES = 1024 * 1024;
const MAX_ISSUED = 512 * 1024;

export function decode<T>(body: Uint8Array, read: (reader: OctetReader) => T): T {
  const reader = new OctetReader(body);
  const value = read(reader);
  reader.done();
  return value;
}

const USES: readonly KeyUse[] = ["x509", "jwt"];
const PLACES = ["disk", "memory", "pkcs11"] as const;

export function oneOf<T>(list: readonly T[], index: number): T {
  const value = list[index];
  if (value === undefined) {
    throw malformed(`${index} where one of ${list.length} is expected`);
  }
  return value;
}

export function flag(reader: OctetReader): boolean {
  return oneOf([false, true], reader.u8());
}

export const writeUse = (to: OctetWriter, use: KeyUse): OctetWriter => to.u8(USES.indexOf(use));
export const readUse = (from: OctetReader): KeyUse => oneOf(USES, from.u8());
export const writeType = (to: OctetWriter, type: KeyType): OctetWriter => to.u8(KEY_TYPES.indexOf(type));
export const readType = (from: OctetReader): KeyType => oneOf(KEY_TYPES, from.u8());

export const readId = (from: OctetReader): string => hexText(from.bytes(64));
export const writeId = (to: OctetWriter, id: string): OctetWriter => to.bytes(Buffer.from(id, "hex"));
const hexText = (bytes: Buffer): string => bytes.toString("hex");

export function writeSetup(to: OctetWriter, { trustDomain, keys, logDir, ceilings }: Setup): void {
  to.text(trustDomain).u8(PLACES.indexOf(keys.kind));
  if (keys.kind !== "memory") {
    to.text(keys.dir);
  }
  if (keys.kind === "pkcs11") {
    to.text(keys.module).text(keys.tokenLabel).text(keys.pinFile);
  }
  to.text(logDir).integer(ceilings.maxX509SvidTtlMs).integer(ceilings.maxJwtSvidTtlMs).integer(ceilings.maxCaTtlMs);
  to.integer(ceilings.maxPerSecond).u8(ceilings.downstream ? 1 : 0);
}

export function readSetup(from: OctetReader): Setup {
  const text = () => from.text(MAX_NAME);
  const trustDomain = text();
  const keys = readPlace(oneOf(PLACES, from.u8()), text);
  const logDir = text();
  const ceilings: Ceilings = {
    maxX509SvidTtlMs: from.integer(),
    maxJwtSvidTtlMs: from.integer(),
    maxCaTtlMs: from.integer(),
    maxPerSecond: from.integer(),
    downstream: flag(from),
  };
  return { trustDomain, keys, logDir, ceilings };
}

function readPlace(kind: KeyPlace["kind"], text: () => string): KeyPlace {
  if (kind === "memory") {
    return { kind };
  }
  const dir = text();
  return kind === "disk" ? { kind, dir } : { kind, dir, module: text(), tokenLabel: text(), pinFile: text() };
}

export function writeHeldKey(to: OctetWriter, { use, id, type, spki, chain }: HeldKey): void {
  writeType(writeId(writeUse(to, use), id), type).bytes(spki);
  writeChain(to, chain);
}

export function readHeldKey(from: OctetReader): HeldKey {
  const use = readUse(from);
  const id = readId(from);
  const type = readType(from);
  return { use, id, type, spki: copy(from.bytes(MAX_DER)), chain: readChain(from) };
}

export function writeChain(to: OctetWriter, chain: readonly Uint8Array[]): void {
  to.list(chain, (der) => to.bytes(der));
}

export function readChain(from: OctetReader): Uint8Array[] {
  return from.list(MAX_CHAIN, () => copy(from.bytes(MAX_DER)));
}

/** What outlives the message must not hold it. */
export function copy(bytes: Uint8Array): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes);
}

export function writeSetUp(to: OctetWriter, { keys, durable, repairedBytes, logRecords }: SetUp): void {
  to.list(keys, (key) => writeHeldKey(to, key));
  to.u8(durable ? 1 : 0)
    .integer(repairedBytes)
    .integer(logRecords);
}

export function readSetUp(from: OctetReader): SetUp {
  const keys = from.list(MAX_KEYS, () => readHeldKey(from));
  return { keys, durable: flag(from), repairedBytes: from.integer(), logRecords: from.integer() };
}

export function writePermit(to: OctetWriter, { token, digest }: Permit): void {
  writeId(writeId(to, token), digest);
}

export function readPermit(from: OctetReader): Permit {
  return { token: readId(from), digest: readId(from) };
}

export const writeIssued = (to: OctetWriter, issued: Uint8Array): OctetWriter => to.bytes(issued);
export const readIssued = (from: OctetReader): Uint8Array => copy(from.bytes(MAX_ISSUED));

export function writeLogPage(to: OctetWriter, { lines, next }: LogPage): void {
  to.list(lines, (line) => to.text(line)).integer(next ?? -1);
}

export function readLogPage(from: OctetReader): LogPage {
  const lines = from.list(MAX_LOG_PAGE_BYTES, () => from.text(MAX_LOG_PAGE_BYTES));
  const next = from.integer();
  return { lines, next: next < 0 ? null : next };
}

export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: EveryhopError };

/** The result of each item of a batch: one that is refused takes no other with it. */
export function writeOutcomes<T>(
  to: OctetWriter,
  outcomes: readonly Outcome<T>[],
  write: (to: OctetWriter, value: T) => void,
): void {
  to.list(outcomes, (outcome) => {
    to.u8(outcome.ok ? 1 : 0);
    if (outcome.ok) {
      write(to, outcome.value);
    } else {
      writeError(to, outcome.error);
    }
  });
}

export function readOutcomes<T>(from: OctetReader, read: (from: OctetReader) => T): Outcome<T>[] {
  return from.list(MAX_BATCH, () =>
    flag(from) ? { ok: true, value: read(from) } : { ok: false, error: readError(from) },
  );
}

const MAX_MESSAGE = 8_192;

export function writeError(to: OctetWriter, thrown: unknown): void {
  const { code, message, hint } = toEveryhopError(thrown);
  to.text(code)
    .text(message.slice(0, MAX_MESSAGE / 4))
    .text((hint ?? "").slice(0, MAX_MESSAGE / 4));
}

export function readError(from: OctetReader): EveryhopError {
  const code = from.text(64);
  const message = from.text(MAX_MESSAGE);
  const hint = from.text(MAX_MESSAGE);
  const known: Code = Object.hasOwn(CODES, code) ? (code as Code) : "internal";
  return new EveryhopError(known, message, hint === "" ? {} : { hint });
}
