/** Certificates for tests: made by the same writer as real ones, but with every field open to change. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { algorithmIdentifier } from "./algorithm.ts";
import { assembleCertificate, buildCaTbs, buildLeafTbs, keyIdentifier } from "./build.ts";
import { TAG } from "./der.ts";
import { namedBitString, oidElement, sequence, timeElement, tlv, unsignedInteger } from "./der-write.ts";
import { EXTENSION, KEY_USAGES, type KeyUsage } from "./extensions.ts";
import { encodeName } from "./name.ts";

export const NOW = Date.UTC(2030, 0, 1, 12);
export const HOUR = 3_600_000;

export interface TestKey {
  readonly key: KeyObject;
  readonly spki: Uint8Array;
}

export function testKey(curve = "P-256"): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: curve });
  return { key: privateKey, spki: publicKey.export({ format: "der", type: "spki" }) };
}

export interface TestCa extends TestKey {
  readonly name: Uint8Array;
  readonly der: Uint8Array;
}

let counter = 0;
/** A serial number that differs on each call, without randomness. */
export function testSerial(): Uint8Array {
  return createHash("sha256").update(`${counter++}`).digest().subarray(0, 16);
}

type CaOptions = { readonly [K in keyof Parameters<typeof buildCaTbs>[0]]?: Parameters<typeof buildCaTbs>[0][K] };
type LeafOptions = { readonly [K in keyof Parameters<typeof buildLeafTbs>[0]]?: Parameters<typeof buildLeafTbs>[0][K] };

/** A CA: self-signed, or signed by `issuer`. */
export function testCa(common: string, options: CaOptions = {}, issuer?: TestCa, own = testKey()): TestCa {
  const name = encodeName([
    { type: "O", value: "everyhop test" },
    { type: "CN", value: common },
  ]);
  const parent = issuer ?? { ...own, name };
  const tbs = buildCaTbs({
    serial: testSerial(),
    algorithm: "ecdsa-sha256",
    issuer: parent.name,
    subject: name,
    notBeforeMs: NOW - HOUR,
    notAfterMs: NOW + 24 * HOUR,
    spki: own.spki,
    authorityKeyId: keyIdentifier(parent.spki),
    spiffeId: "spiffe://example.com",
    pathLength: null,
    ...options,
  });
  return { ...own, name, der: assembleCertificate(tbs, "ecdsa-sha256", (bytes) => sign("sha256", bytes, parent.key)) };
}

export function testLeaf(issuer: TestCa, spiffeId: string, options: LeafOptions = {}, own = testKey()): Uint8Array {
  const tbs = buildLeafTbs({
    serial: testSerial(),
    algorithm: "ecdsa-sha256",
    issuer: issuer.name,
    subject: encodeName([{ type: "O", value: "everyhop test" }]),
    notBeforeMs: NOW - 10_000,
    notAfterMs: NOW + HOUR,
    spki: own.spki,
    authorityKeyId: keyIdentifier(issuer.spki),
    spiffeId,
    dnsNames: [],
    ...options,
  });
  return assembleCertificate(tbs, "ecdsa-sha256", (bytes) => sign("sha256", bytes, issuer.key));
}

const TRUE = tlv(TAG.boolean, Uint8Array.of(0xff));

/** The extensions of a certificate that no honest writer makes; `undefined` leaves one out. */
export interface RawExtensions {
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly keyUsage?: readonly KeyUsage[];
  /** `[ca, pathLength?]`. */
  readonly basicConstraints?: readonly [boolean, number?];
  readonly purposes?: readonly string[];
  /** Host rules of permitted URI subtrees. */
  readonly permittedUris?: readonly string[];
  readonly permittedDns?: readonly string[];
  readonly excludedUris?: readonly string[];
  readonly subjectKeyId?: Uint8Array;
  readonly authorityKeyId?: Uint8Array;
  readonly others?: readonly Uint8Array[];
}

export function rawExtension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(oidElement(oid), ...(critical ? [TRUE] : []), tlv(TAG.octetString, value));
}

function rawExtensions(from: RawExtensions): Uint8Array[] {
  const text = (tag: number, value: string) => tlv(tag, Buffer.from(value, "latin1"));
  const names = [
    ...(from.uris ?? []).map((uri) => text(0x86, uri)),
    ...(from.dnsNames ?? []).map((dns) => text(0x82, dns)),
  ];
  const subtrees = (tag: number, uris: readonly string[] = [], dns: readonly string[] = []) =>
    uris.length + dns.length === 0
      ? []
      : [tlv(tag, ...uris.map((uri) => sequence(text(0x86, uri))), ...dns.map((name) => sequence(text(0x82, name))))];
  const constraints = [...subtrees(0xa0, from.permittedUris, from.permittedDns), ...subtrees(0xa1, from.excludedUris)];
  const [ca, pathLength] = from.basicConstraints ?? [false];
  const basic = [
    ...(ca ? [TRUE] : []),
    ...(pathLength === undefined ? [] : [unsignedInteger(Uint8Array.of(pathLength))]),
  ];
  const bits = from.keyUsage?.map((usage) => KEY_USAGES.indexOf(usage)) ?? [];
  const add = (when: unknown, oid: string, critical: boolean, value: () => Uint8Array) =>
    when === undefined || when === 0 ? [] : [rawExtension(oid, critical, value())];
  return [
    ...add(names.length, EXTENSION.subjectAltName, false, () => sequence(...names)),
    ...add(from.keyUsage, EXTENSION.keyUsage, true, () => namedBitString(bits)),
    ...add(from.basicConstraints, EXTENSION.basicConstraints, true, () => sequence(...basic)),
    ...add(from.purposes, EXTENSION.extendedKeyUsage, false, () => sequence(...(from.purposes ?? []).map(oidElement))),
    ...add(constraints.length, EXTENSION.nameConstraints, true, () => sequence(...constraints)),
    ...add(from.subjectKeyId, EXTENSION.subjectKeyId, false, () =>
      tlv(TAG.octetString, from.subjectKeyId ?? new Uint8Array()),
    ),
    ...add(from.authorityKeyId, EXTENSION.authorityKeyId, false, () =>
      sequence(tlv(0x80, from.authorityKeyId ?? new Uint8Array())),
    ),
    ...(from.others ?? []),
  ];
}

export interface RawOptions extends RawExtensions {
  readonly subject?: Uint8Array;
  readonly issuerName?: Uint8Array;
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

/** A certificate with exactly these extensions, signed by `issuer`. */
export function rawCertificate(issuer: TestCa, options: RawOptions, own: TestKey = testKey()): Uint8Array {
  const extensions = rawExtensions(options);
  const tbs = sequence(
    tlv(0xa0, unsignedInteger(Uint8Array.of(2))),
    unsignedInteger(testSerial()),
    algorithmIdentifier("ecdsa-sha256"),
    options.issuerName ?? issuer.name,
    sequence(timeElement(options.notBeforeMs ?? NOW - 10_000), timeElement(options.notAfterMs ?? NOW + HOUR)),
    options.subject ?? encodeName([{ type: "O", value: "everyhop test" }]),
    own.spki,
    ...(extensions.length === 0 ? [] : [tlv(0xa3, sequence(...extensions))]),
  );
  return assembleCertificate(tbs, "ecdsa-sha256", (bytes) => sign("sha256", bytes, issuer.key));
}

/** A CA with exactly these extensions, to sign further certificates with. */
export function rawCa(common: string, options: RawOptions, issuer?: TestCa): TestCa {
  const own = testKey();
  const name = encodeName([{ type: "CN", value: common }]);
  const der = rawCertificate(issuer ?? { ...own, name, der: new Uint8Array() }, { subject: name, ...options }, own);
  return { ...own, name, der };
}

/** The extensions of an ordinary CA. */
export const CA_EXTENSIONS = {
  keyUsage: ["keyCertSign", "cRLSign"],
  basicConstraints: [true],
  notAfterMs: NOW + 24 * HOUR,
} as const satisfies RawOptions;

/** The extensions of an ordinary X.509-SVID. */
export const LEAF_EXTENSIONS = {
  keyUsage: ["digitalSignature"],
  basicConstraints: [false],
} as const satisfies RawOptions;

/** A certification request for `own`, asking for `uris`. */
export function testCsr(own: TestKey = testKey(), uris: readonly string[] = []): Uint8Array {
  const [san = new Uint8Array()] = rawExtensions({ uris });
  const request = sequence(oidElement("1.2.840.113549.1.9.14"), tlv(TAG.set, sequence(san)));
  const info = sequence(
    unsignedInteger(Uint8Array.of(0)),
    encodeName([{ type: "O", value: "everyhop test" }]),
    own.spki,
    tlv(0xa0, ...(uris.length === 0 ? [] : [request])),
  );
  return assembleCertificate(info, "ecdsa-sha256", (bytes) => sign("sha256", bytes, own.key));
}
