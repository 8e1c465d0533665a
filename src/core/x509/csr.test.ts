import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";
import { parseCsr, verifyCsr } from "./csr.ts";
import { sequence, tlv } from "./der-write.ts";
import { testCsr, testKey } from "./fixture.ts";

test("a request is verified with the key in it", () => {
  const key = testKey();
  const request = verifyCsr(testCsr(key, ["spiffe://example.com/a"]));
  assert.deepEqual(Buffer.from(request.spki), Buffer.from(key.spki));
  assert.deepEqual(request.names?.uris, ["spiffe://example.com/a"]);
  assert.deepEqual(request.publicKey.key, { kind: "ec", curve: "P-256" });
  assert.equal(parseCsr(testCsr(testKey("P-384"), [])).names, null);
});

test("a request for a key that the asker does not hold is refused", () => {
  const [own, other] = [testKey(), testKey()];
  const stolen = testCsr({ key: own.key, spki: other.spki });
  assert.throws(() => verifyCsr(stolen), /does not verify/);
});

test("weak keys are refused", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 1024 });
  const spki = rsa.publicKey.export({ format: "der", type: "spki" });
  assert.throws(() => verifyCsr(testCsr({ key: rsa.privateKey, spki })), /1024 bits/);
  const odd = generateKeyPairSync("ec", { namedCurve: "secp256k1" });
  const oddSpki = odd.publicKey.export({ format: "der", type: "spki" });
  assert.throws(() => verifyCsr(testCsr({ key: odd.privateKey, spki: oddSpki })), /curve/);
  const x25519 = generateKeyPairSync("x25519").publicKey.export({ format: "der", type: "spki" });
  assert.throws(() => verifyCsr(testCsr({ key: testKey().key, spki: x25519 })), /not allowed/);
});

test("a point off the curve is refused", () => {
  const { key, spki } = testKey();
  const off = Buffer.from(spki);
  off[off.length - 1] = (off[off.length - 1] as number) ^ 1;
  assert.throws(() => verifyCsr(testCsr({ key, spki: off })), /not a usable public key/);
});

test("what is too large is refused before it is read", () => {
  assert.throws(() => parseCsr(tlv(0x30, new Uint8Array(20_000))), /too large/);
});

test("other versions are refused", () => {
  const { key, spki } = testKey();
  const info = sequence(tlv(2, Uint8Array.of(1)), sequence(), spki, tlv(0xa0));
  const algorithm = Buffer.from("300a06082a8648ce3d040302", "hex");
  const signature = tlv(3, Uint8Array.of(0), sign("sha256", info, key));
  assert.throws(() => verifyCsr(sequence(info, algorithm, signature)), /version/);
});
