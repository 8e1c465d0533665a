import assert from "node:assert/strict";
import { createPrivateKey, generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";
import { verifyCsr } from "./csr.ts";
import { buildCsr } from "./csr-build.ts";

const pair = generateKeyPairSync("ec", {
  namedCurve: "P-256",
  publicKeyEncoding: { format: "der", type: "spki" },
  privateKeyEncoding: { format: "der", type: "pkcs8" },
});
const key = createPrivateKey({ key: pair.privateKey, format: "der", type: "pkcs8" });

test("a request built is a request that verifies, with the names it asks for", () => {
  const uris = ["spiffe://example.com/ns/a/sa/web"];
  const dnsNames = ["web.example.com", "b.example.com"];
  const algorithm = "ecdsa-sha256";
  const der = buildCsr({ spki: pair.publicKey, algorithm, uris, dnsNames }, (info) => sign("sha256", info, key));
  const { names, spki } = verifyCsr(der);
  assert.deepEqual(names?.uris, uris);
  assert.deepEqual(names?.dnsNames, dnsNames);
  assert.deepEqual(Buffer.from(spki), pair.publicKey);
});

test("without names it asks for a certificate of its key alone", () => {
  const template = { spki: pair.publicKey, algorithm: "ecdsa-sha256" } as const;
  const der = buildCsr(template, (info) => sign("sha256", info, key));
  assert.equal(verifyCsr(der).names, null);
});
