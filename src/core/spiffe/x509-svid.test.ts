import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseCertificate } from "../x509/certificate.ts";
import { EKU } from "../x509/extensions.ts";
import {
  CA_EXTENSIONS,
  HOUR,
  LEAF_EXTENSIONS,
  NOW,
  type RawOptions,
  rawCa,
  rawCertificate,
  rawExtension,
  testCa,
  testLeaf,
} from "../x509/fixture.ts";
import { certificatesFromPem } from "../x509/pem.ts";
import { parseTrustDomain } from "./id.ts";
import { bundlesOf, identityOf, verifyX509Svid, type X509BundleOf, type X509SvidFault } from "./x509-svid.ts";

const ID = "spiffe://example.com/ns/production/sa/api";
const root = testCa("root");
const otherRoot = testCa("other root", { spiffeId: "spiffe://other.test" });
const bundleOf: X509BundleOf = bundlesOf(
  new Map([
    [parseTrustDomain("example.com"), [root.der]],
    [parseTrustDomain("other.test"), [otherRoot.der]],
    [parseTrustDomain("empty.test"), []],
  ]),
);

function reasonOf(chain: readonly Uint8Array[], now = NOW): X509SvidFault | "ok" {
  const result = verifyX509Svid(chain, bundleOf, now);
  return result.ok ? "ok" : result.reason;
}

const leaf = (options: RawOptions) => rawCertificate(root, { uris: [ID], ...LEAF_EXTENSIONS, ...options });

test("a good chain proves the identity", () => {
  const result = verifyX509Svid([testLeaf(root, ID)], bundleOf, NOW);
  assert.ok(result.ok);
  assert.deepEqual([result.id, result.trustDomain, result.notAfterMs], [ID, "example.com", NOW + HOUR]);
});

test("SPIFFE's rules for a leaf", async (t) => {
  const cases: readonly (readonly [string, RawOptions, X509SvidFault | "ok"])[] = [
    ["as it should be", {}, "ok"],
    ["no extendedKeyUsage is fine", { purposes: [EKU.serverAuth, EKU.clientAuth] }, "ok"],
    ["any purpose", { purposes: [EKU.any] }, "ok"],
    ["DNS names beside the ID", { dnsNames: ["a.example.com", "b.example.com"] }, "ok"],
    ["no URI name", { uris: [] }, "no-spiffe-id"],
    ["two URI names", { uris: [ID, "spiffe://example.com/b"] }, "several-uri-names"],
    ["the same URI name twice", { uris: [ID, ID] }, "several-uri-names"],
    ["a foreign URI beside the ID", { uris: [ID, "https://example.com/"] }, "several-uri-names"],
    ["another scheme", { uris: ["sparfe://example.com/a"] }, "no-spiffe-id"],
    ["upper case", { uris: ["spiffe://EXAMPLE.com/a"] }, "no-spiffe-id"],
    ["a NUL in the ID", { uris: ["spiffe://example.com/a\0b"] }, "no-spiffe-id"],
    ["percent-encoding", { uris: ["spiffe://example.com/%61"] }, "no-spiffe-id"],
    ["dot segments", { uris: ["spiffe://example.com/a/../b"] }, "no-spiffe-id"],
    ["a port", { uris: ["spiffe://example.com:8443/a"] }, "no-spiffe-id"],
    ["the trust domain's own ID", { uris: ["spiffe://example.com"] }, "root-path"],
    ["a trailing slash", { uris: ["spiffe://example.com/"] }, "no-spiffe-id"],
    ["a CA", { basicConstraints: [true] }, "leaf-is-ca"],
    ["keyCertSign", { keyUsage: ["digitalSignature", "keyCertSign"] }, "leaf-may-sign"],
    ["cRLSign", { keyUsage: ["digitalSignature", "cRLSign"] }, "leaf-may-sign"],
    ["no digitalSignature", { keyUsage: ["keyEncipherment"] }, "leaf-key-usage"],
    ["clients only", { purposes: [EKU.clientAuth] }, "leaf-purpose"],
    ["servers only", { purposes: [EKU.serverAuth] }, "leaf-purpose"],
    ["expired", { notAfterMs: NOW - 1000 }, "expired"],
    ["not yet valid", { notBeforeMs: NOW + 1000 }, "not-yet-valid"],
    ["a foreign trust domain under our root", { uris: ["spiffe://other.test/a"] }, "unknown-authority"],
    ["a trust domain nobody knows", { uris: ["spiffe://nobody.test/a"] }, "unknown-trust-domain"],
    ["a trust domain whose keys are all revoked", { uris: ["spiffe://empty.test/a"] }, "unknown-authority"],
    [
      "a critical extension nobody knows",
      { others: [rawExtension("1.2.3.4", true, new Uint8Array([5, 0]))] },
      "unknown-critical-extension",
    ],
    ["an extension nobody knows", { others: [rawExtension("1.2.3.4", false, new Uint8Array([5, 0]))] }, "ok"],
  ];
  for (const [name, options, expected] of cases) {
    await t.test(name, () => assert.equal(reasonOf([leaf(options)]), expected));
  }
  await t.test("no keyUsage at all", () => {
    assert.equal(reasonOf([rawCertificate(root, { uris: [ID], basicConstraints: [false] })]), "leaf-key-usage");
  });
  await t.test("no certificate", () => assert.equal(reasonOf([]), "no-certificate"));
  await t.test("a chain without end", () => assert.equal(reasonOf(Array(11).fill(leaf({}))), "chain-too-long"));
  await t.test("not a certificate", () => assert.equal(reasonOf([new Uint8Array([0x27])]), "malformed"));
  await t.test("bytes after it", () => assert.equal(reasonOf([Buffer.concat([leaf({}), Buffer.of(0)])]), "malformed"));
});

test("a chain of another trust domain's authority never proves an ID of ours, whatever is sent along", () => {
  const forged = testLeaf(otherRoot, ID);
  assert.equal(reasonOf([forged]), "unknown-authority");
  assert.equal(reasonOf([forged, otherRoot.der]), "unknown-authority");
  const sameName = testCa("root");
  assert.equal(reasonOf([testLeaf(sameName, ID), sameName.der]), "unknown-authority");
  assert.equal(reasonOf([testLeaf({ ...sameName, spki: root.spki }, ID)]), "bad-signature");
});

test("signing certificates never authenticate a peer", () => {
  assert.equal(reasonOf([root.der]), "root-path");
});

test("go-spiffe's own certificates, refused and accepted as it does", () => {
  const file = join(import.meta.dirname, "testdata/go-spiffe.json");
  const { x509svid } = JSON.parse(readFileSync(file, "utf8")) as { x509svid: Readonly<Record<string, string>> };
  const expected: Readonly<Record<string, string>> = {
    "good-leaf-only": "ok",
    "good-leaf-and-intermediate": "ok",
    "wrong-leaf-ca-true": "leaf-is-ca",
    "wrong-leaf-cert-sign": "leaf-may-sign",
    "wrong-leaf-crl-sign": "leaf-may-sign",
    "wrong-leaf-empty-id": "no-spiffe-id",
    // It carries cRLSign as well, which is looked at first here.
    "wrong-leaf-no-digital-signature": "leaf-may-sign",
  };
  for (const [name, reason] of Object.entries(expected)) {
    const [leafDer] = certificatesFromPem(x509svid[name] as string);
    const identity = identityOf(parseCertificate(leafDer as Uint8Array));
    assert.equal(identity.ok ? "ok" : identity.reason, reason, name);
  }
  for (const name of ["wrong-intermediate-no-ca", "wrong-intermediate-no-key-cert-sign"]) {
    const [leafDer, issuer] = certificatesFromPem(x509svid[name] as string).map(parseCertificate);
    assert.ok(leafDer && issuer);
    const at = Math.max(leafDer.notBeforeMs, issuer.notBeforeMs);
    const result = verifyX509Svid([leafDer.der], () => ({ x509Authorities: [issuer.der] }), at);
    assert.equal(result.ok ? "ok" : result.reason, "not-an-authority", name);
  }
  assert.throws(() => certificatesFromPem(x509svid["corrupt-cert"] as string).map(parseCertificate), /malformed/);
});

test("intermediates, in any order, and what they may not be", async (t) => {
  const middle = rawCa("middle", { ...CA_EXTENSIONS }, root);
  const lower = rawCa("lower", { ...CA_EXTENSIONS }, middle);
  const good = testLeaf(lower, ID);
  await t.test("leaf first", () => assert.equal(reasonOf([good, lower.der, middle.der]), "ok"));
  await t.test("shuffled", () => assert.equal(reasonOf([good, middle.der, lower.der]), "ok"));
  await t.test("with the root sent along", () => assert.equal(reasonOf([good, root.der, middle.der, lower.der]), "ok"));
  await t.test("with a gap", () => assert.equal(reasonOf([good, middle.der]), "unknown-authority"));
  const chainUnder = (name: string, options: RawOptions): X509SvidFault | "ok" => {
    const ca = rawCa(name, { ...CA_EXTENSIONS, ...options }, root);
    return reasonOf([testLeaf(ca, ID), ca.der]);
  };
  const cases: readonly (readonly [string, RawOptions, X509SvidFault | "ok"])[] = [
    ["not a CA", { basicConstraints: [false] }, "not-an-authority"],
    ["may not sign", { keyUsage: ["cRLSign"] }, "not-an-authority"],
    ["expired", { notAfterMs: NOW - 1 }, "expired"],
    ["not yet valid", { notBeforeMs: NOW + 1000 }, "not-yet-valid"],
    [
      "a critical extension nobody knows",
      { others: [rawExtension("1.2.3", true, Buffer.of(5, 0))] },
      "unknown-critical-extension",
    ],
    ["constrained to our trust domain", { permittedUris: ["example.com"] }, "ok"],
    ["constrained to another one", { permittedUris: ["other.test"] }, "name-constraint"],
    ["constrained to hosts below ours", { permittedUris: [".example.com"] }, "name-constraint"],
    ["ours excluded", { excludedUris: ["example.com"] }, "name-constraint"],
    ["constraints on DNS alone", { permittedDns: ["nowhere.test"] }, "ok"],
  ];
  for (const [name, options, expected] of cases) {
    await t.test(name, () => assert.equal(chainUnder(name, options), expected));
  }
  await t.test("a leaf does not sign a leaf", () => {
    const evil = rawCa("evil", { ...LEAF_EXTENSIONS, uris: [ID] }, root);
    assert.equal(reasonOf([testLeaf(evil, "spiffe://example.com/admin"), evil.der]), "not-an-authority");
  });
  await t.test("path length", () => {
    const zero = rawCa("zero", { ...CA_EXTENSIONS, basicConstraints: [true, 0] }, root);
    assert.equal(reasonOf([testLeaf(zero, ID), zero.der]), "ok");
    const below = rawCa("below", { ...CA_EXTENSIONS }, zero);
    assert.equal(reasonOf([testLeaf(below, ID), below.der, zero.der]), "path-too-long");
  });
});
