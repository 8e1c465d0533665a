import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { buildCaTbs, buildLeafTbs, keyIdentifier } from "./build.ts";
import { parseCertificate } from "./certificate.ts";
import { HOUR, NOW, type RawOptions, rawCertificate, rawExtension, testCa, testKey, testSerial } from "./fixture.ts";
import { type LintExpectation, lintTbs } from "./lint.ts";
import { encodeName } from "./name.ts";

const ca = testCa("root");
const own = testKey();
const ID = "spiffe://example.com/a";
const keyId = keyIdentifier(ca.spki);
const serial = testSerial();
const EXPECTED: LintExpectation = {
  kind: "leaf",
  algorithm: "ecdsa-sha256",
  serial: Buffer.from(serial).toString("hex"),
  spiffeId: ID,
  dnsNames: [],
  spki: own.spki,
  issuer: ca.name,
  issuerKeyId: Buffer.from(keyId).toString("hex"),
  nowMs: NOW,
  issuerNotAfterMs: NOW + 24 * HOUR,
  maxLifetimeMs: HOUR,
};
const LEAF = {
  serial,
  algorithm: "ecdsa-sha256",
  issuer: ca.name,
  subject: encodeName([{ type: "O", value: "everyhop" }]),
  notBeforeMs: NOW - 10_000,
  notAfterMs: NOW + HOUR,
  spki: own.spki,
  authorityKeyId: keyId,
  spiffeId: ID,
  dnsNames: [],
} as const;

test("an honest leaf and an honest CA have no faults", () => {
  assert.deepEqual(lintTbs(buildLeafTbs(LEAF), EXPECTED), []);
  const noSubject = { ...LEAF, subject: Buffer.from("3000", "hex") };
  assert.deepEqual(lintTbs(buildLeafTbs(noSubject), EXPECTED), []);
  const caTbs = buildCaTbs({ ...LEAF, spiffeId: "spiffe://example.com", pathLength: 0 });
  assert.deepEqual(lintTbs(caTbs, { ...EXPECTED, kind: "ca", spiffeId: "spiffe://example.com" }), []);
});

test("each fault of a template is found", async (t) => {
  const small = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "der", type: "spki" });
  const cases: readonly (readonly [string, object, RegExp])[] = [
    ["serial of zero", { serial: Buffer.alloc(16) }, /serial number is zero/],
    ["counted serial", { serial: Buffer.of(7) }, /less than 64 bits/],
    ["times the wrong way", { notBeforeMs: NOW, notAfterMs: NOW - 5000 }, /not before notAfter/],
    ["from tomorrow", { notBeforeMs: NOW + 1000 }, /not yet valid/],
    ["from last week", { notBeforeMs: NOW - 7 * 24 * HOUR }, /too far in the past/],
    ["longer than asked", { notAfterMs: NOW + HOUR + 1000 }, /lives too long/],
    ["longer than its CA", { notAfterMs: NOW + 48 * HOUR }, /outlives its issuer/],
    ["another ID", { spiffeId: "spiffe://example.com/b" }, /not the SPIFFE ID asked for/],
    ["no path", { spiffeId: "spiffe://example.com" }, /needs a path/],
    ["an unasked DNS name", { dnsNames: ["a.b"] }, /DNS names are not those asked for/],
    ["a DNS name that is none", { dnsNames: ["a b"] }, /not a DNS label/],
    ["another key", { spki: testKey().spki }, /public key is not the one/],
    ["a weak key", { spki: small }, /1024 bits/],
    ["another issuer", { issuer: encodeName([{ type: "O", value: "evil" }]) }, /issuer is not the signer/],
    ["another issuer's key", { authorityKeyId: Buffer.alloc(20) }, /authorityKeyIdentifier/],
  ];
  for (const [name, change, fault] of cases) {
    await t.test(name, () => assert.match(lintTbs(buildLeafTbs({ ...LEAF, ...change }), EXPECTED).join("; "), fault));
  }
  await t.test("garbage", () => assert.match(lintTbs(Buffer.of(1, 2), EXPECTED).join(), /malformed DER/));
  await t.test("a CA where a leaf is asked for", () => {
    const faults = lintTbs(buildCaTbs({ ...LEAF, pathLength: null }), EXPECTED).join("; ");
    assert.match(faults, /cA must not be set/);
    assert.match(faults, /may not carry keyCertSign/);
  });
  await t.test("a leaf where a CA is asked for", () => {
    const faults = lintTbs(buildLeafTbs(LEAF), { ...EXPECTED, kind: "ca" }).join("; ");
    assert.match(faults, /cA must be set/);
    assert.match(faults, /keyCertSign must be set/);
  });
});

test("each fault of an extension is found", async (t) => {
  const good: RawOptions = {
    uris: [ID],
    keyUsage: ["digitalSignature"],
    basicConstraints: [false],
    authorityKeyId: keyId,
  };
  const email = rawExtension("2.5.29.17", false, Buffer.from("300681046140622e", "hex"));
  const cases: readonly (readonly [string, RawOptions, RegExp])[] = [
    ["two IDs", { uris: [ID, ID] }, /exactly one/],
    ["no ID", { uris: [] }, /exactly one/],
    ["a name of another kind", { uris: [], others: [email] }, /nobody asked for/],
    ["cRLSign", { keyUsage: ["digitalSignature", "cRLSign"] }, /may not carry/],
    ["no digitalSignature", { keyUsage: ["keyAgreement"] }, /digitalSignature must be set/],
    ["no purposes", {}, /extendedKeyUsage must be/],
    ["clients only", { purposes: ["1.3.6.1.5.5.7.3.2"] }, /extendedKeyUsage must be/],
    ["no key identifier", {}, /subjectKeyIdentifier is missing/],
    ["an unknown critical one", { others: [rawExtension("1.2.3", true, Buffer.of(5, 0))] }, /unknown critical/],
  ];
  for (const [name, change, fault] of cases) {
    await t.test(name, () => {
      const { tbs } = parseCertificate(rawCertificate(ca, { ...good, ...change }, own));
      assert.match(lintTbs(tbs, EXPECTED).join("; "), fault);
    });
  }
});
