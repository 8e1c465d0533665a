import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { parseCertificate } from "./certificate.ts";
import { HOUR, NOW, testCa, testLeaf } from "./fixture.ts";
import { formatName } from "./name.ts";

test("a certificate we write says what was asked, to us and to OpenSSL alike", () => {
  const ca = testCa("root");
  const der = testLeaf(ca, "spiffe://example.com/a", { dnsNames: ["a.example.com"] });
  const parsed = parseCertificate(der);
  const other = new X509Certificate(der);
  assert.equal(parsed.serial, other.serialNumber.toLowerCase());
  assert.deepEqual(parsed.names?.uris, ["spiffe://example.com/a"]);
  assert.deepEqual(parsed.names?.dnsNames, ["a.example.com"]);
  assert.equal(other.subjectAltName, "URI:spiffe://example.com/a, DNS:a.example.com");
  assert.equal(parsed.notAfterMs, NOW + HOUR);
  assert.equal(parsed.notAfterMs, Date.parse(other.validTo));
  assert.equal(parsed.notBeforeMs, Date.parse(other.validFrom));
  assert.equal(formatName(parsed.issuer), "O=everyhop test,CN=root");
  assert.deepEqual(parsed.keyUsage, ["digitalSignature", "keyEncipherment", "keyAgreement"]);
  assert.deepEqual(parsed.basicConstraints, { ca: false, pathLength: null });
  assert.equal(parsed.authorityKeyId, parseCertificate(ca.der).subjectKeyId);
  assert.ok(other.verify(new X509Certificate(ca.der).publicKey));
  assert.ok(other.checkIssued(new X509Certificate(ca.der)));
});
