import assert from "node:assert/strict";
import { generateKeyPairSync, sign, verify } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { derFromJose, joseFromDer } from "./ecdsa.ts";

test("both forms of a signature verify alike", () => {
  for (const [namedCurve, octets] of [
    ["P-256", 32],
    ["P-384", 48],
    ["P-521", 66],
  ] as const) {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve });
    for (let round = 0; round < 20; round++) {
      const message = Buffer.of(round);
      const jose = joseFromDer(sign("sha256", message, privateKey), octets);
      assert.ok(jose !== null && jose.length === 2 * octets);
      assert.ok(verify("sha256", message, { key: publicKey, dsaEncoding: "ieee-p1363" }, jose));
      assert.ok(verify("sha256", message, publicKey, derFromJose(jose)));
    }
  }
});

test("jose ∘ der = identity, for any numbers", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 132, maxLength: 132 }), fc.constantFrom(32, 48, 66), (octets, half) => {
      const signature = Buffer.from(octets.subarray(0, 2 * half));
      assert.deepEqual(Buffer.from(joseFromDer(derFromJose(signature), half) ?? []), signature);
    }),
  );
  const zeros = Buffer.alloc(64);
  assert.deepEqual(Buffer.from(joseFromDer(derFromJose(zeros), 32) ?? []), zeros);
});

test("what is no signature is answered with null", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (octets) => void joseFromDer(octets, 32)));
  assert.equal(joseFromDer(new Uint8Array(), 32), null);
  assert.equal(joseFromDer(Buffer.from("3006020101020101ff", "hex"), 32), null);
});
