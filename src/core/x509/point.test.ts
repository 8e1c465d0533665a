import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePublicKeyInfo, publicKeyFromSpki } from "./algorithm.ts";
import { testKey } from "./fixture.ts";
import { isPointOn } from "./point.ts";

test("agrees with OpenSSL on keys and on keys with one bit changed", () => {
  for (const curve of ["P-256", "P-384"]) {
    for (let round = 0; round < 20; round++) {
      const { spki } = testKey(curve);
      const { bits } = parsePublicKeyInfo(spki);
      assert.equal(isPointOn(curve, bits), true);
      const changed = Buffer.from(spki);
      const at = changed.length - bits.length + 1 + ((round * 7) % (bits.length - 1));
      changed[at] = (changed[at] as number) ^ (1 << (round & 7));
      assert.equal(isPointOn(curve, parsePublicKeyInfo(changed).bits), false);
      assert.throws(() => publicKeyFromSpki(changed));
    }
  }
});

test("other forms of a point are refused", () => {
  const { bits } = parsePublicKeyInfo(testKey().spki);
  assert.equal(isPointOn("P-256", Buffer.of(0)), false, "infinity");
  assert.equal(isPointOn("P-256", Buffer.concat([Buffer.of(2), bits.subarray(1, 33)])), false, "compressed");
  assert.equal(isPointOn("P-256", Buffer.concat([Buffer.of(6), bits.subarray(1)])), false, "hybrid");
  assert.equal(isPointOn("P-384", bits), false);
  assert.equal(isPointOn("P-521", bits), null);
  assert.equal(isPointOn("P-256", Buffer.concat([Buffer.of(4), Buffer.alloc(64, 0xff)])), false, "beyond the field");
});
