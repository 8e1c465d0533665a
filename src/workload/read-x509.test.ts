import assert from "node:assert/strict";
import { test } from "node:test";
import { HOUR, NOW, testCa, testKey, testLeaf } from "../core/x509/fixture.ts";
import { readX509 } from "./read-x509.ts";

const WEB = "spiffe://example.com/web";
const ca = testCa("ca");
const key = testKey();
const keyDer = key.key.export({ format: "der", type: "pkcs8" });
const leaf = testLeaf(ca, WEB, {}, key);
const good = { spiffeId: WEB, x509Svid: leaf, x509SvidKey: keyDer, bundle: ca.der, hint: "" };

test("a response is read into SVIDs and bundles, one trust domain each", () => {
  const foreign = testCa("foreign");
  const { svids, bundles } = readX509({ svids: [good], federatedBundles: { "spiffe://other.org": foreign.der } }, NOW);
  assert.equal(svids[0]?.id, WEB);
  assert.equal(svids[0]?.notAfter, NOW + HOUR);
  assert.deepEqual(
    [...bundles].map(([name, authorities]) => [name, authorities.length]),
    [
      ["other.org", 1],
      ["example.com", 1],
    ],
  );
});

test("a hint that came before is dropped with its SVID", () => {
  const api = testKey();
  const other = {
    ...good,
    spiffeId: "spiffe://example.com/api",
    x509Svid: testLeaf(ca, "spiffe://example.com/api", {}, api),
    x509SvidKey: api.key.export({ format: "der", type: "pkcs8" }),
    hint: "x",
  };
  const { svids } = readX509({ svids: [{ ...good, hint: "x" }, other], federatedBundles: {} }, NOW);
  assert.deepEqual(
    svids.map(({ id }) => id),
    [WEB],
  );
});

test("what is missing, mixed up or expired is refused", () => {
  const otherKey = testKey().key.export({ format: "der", type: "pkcs8" });
  const table: readonly (readonly [string, object | null])[] = [
    ["no SVID", null],
    ["no certificate", { x509Svid: new Uint8Array() }],
    ["no bundle", { bundle: new Uint8Array() }],
    ["another identity's certificate", { spiffeId: "spiffe://example.com/api" }],
    ["a name that is none", { spiffeId: "web" }],
    ["another key", { x509SvidKey: otherKey }],
    ["no key", { x509SvidKey: new Uint8Array() }],
    ["bytes after the certificate", { x509Svid: Buffer.concat([leaf, Uint8Array.of(1, 2)]) }],
    ["a CA as leaf", { x509Svid: ca.der }],
    ["an expired one", { x509Svid: testLeaf(ca, WEB, { notAfterMs: NOW - 1_000 }, key) }],
  ];
  for (const [what, change] of table) {
    const svids = change === null ? [] : [{ ...good, ...change }];
    assert.throws(() => readX509({ svids, federatedBundles: {} }, NOW), what);
  }
});
