/** Certificates for tests: made by the same writer as real ones, but with every field open to change. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { assembleCertificate, buildCaTbs, buildLeafTbs, keyIdentifier } from "./build.ts";
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
