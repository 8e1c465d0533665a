import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DerReader, splitDer, TAG } from "./der.ts";
import { namedBitString, oidElement, sequence, timeElement, tlv, unsignedInteger } from "./der-write.ts";

const hex = (text: string): Uint8Array => Buffer.from(text.replaceAll(" ", ""), "hex");

test("what is not DER is refused", async (t) => {
  const cases: readonly (readonly [string, string, (reader: DerReader) => unknown, RegExp])[] = [
    ["indefinite length", "30 80 00 00", (r) => r.enter(TAG.sequence), /indefinite/],
    ["length in more octets than needed", "30 81 01 00", (r) => r.enter(TAG.sequence), /not minimal/],
    ["leading zero in a length", "30 82 00 80", (r) => r.enter(TAG.sequence), /not minimal/],
    ["five octets of length", "30 85 01 00 00 00 00", (r) => r.enter(TAG.sequence), /impossible length/],
    ["a length beyond the end", "30 05 00", (r) => r.enter(TAG.sequence), /longer than what holds it/],
    ["a length cut short", "30", (r) => r.enter(TAG.sequence), /cut short/],
    ["a high tag number", "1f 01 00", (r) => r.element(), /high tag/],
    ["another tag", "31 00", (r) => r.enter(TAG.sequence), /expected tag/],
    ["a boolean of 1", "01 01 01", (r) => r.boolean(), /boolean/],
    ["an empty integer", "02 00", (r) => r.integer(), /empty/],
    ["a padded integer", "02 02 00 01", (r) => r.integer(), /not minimal/],
    ["a padded negative integer", "02 02 ff ff", (r) => r.integer(), /not minimal/],
    ["a large number where a small one belongs", "02 05 01 00 00 00 00", (r) => r.smallInteger(), /out of range/],
    ["unused bits in a key", "03 02 01 fe", (r) => r.octetAlignedBits(), /whole octets/],
    ["trailing zeros in a bit list", "03 02 00 80", (r) => r.namedBits(), /trailing zeros/],
    ["eight unused bits", "03 02 08 80", (r) => r.namedBits(), /impossible bit string/],
    ["an object identifier with padding", "06 03 2a 80 01", (r) => r.oid(), /object identifier/],
    ["an unfinished object identifier", "06 02 2a 86", (r) => r.oid(), /object identifier/],
    ["the 31st of February", "17 0d 3330303233313030303030305a", (r) => r.time(), /not a time/],
    ["an hour of 24", "17 0d 3330303130313234303030305a", (r) => r.time(), /not a time/],
    ["a time without seconds", "17 0b 333030313031303030305a", (r) => r.time(), /not a time/],
    ["a time with a zone", "17 11 3330303130313030303030302b30303030", (r) => r.time(), /not a time/],
    ["text where a time belongs", "0c 01 41", (r) => r.time(), /expected a time/],
  ];
  for (const [name, bytes, read, message] of cases) {
    await t.test(name, () => assert.throws(() => read(new DerReader(hex(bytes))), message));
  }
});

test("trailing bytes are refused, inside and outside", () => {
  const reader = new DerReader(hex("30 03 02 01 05 00"));
  const inner = reader.enter(TAG.sequence);
  assert.equal(inner.smallInteger(), 5);
  inner.done();
  assert.throws(() => reader.done(), /1 trailing bytes/);
});

test("nesting is bounded", () => {
  let bytes: Uint8Array = new Uint8Array();
  for (let depth = 0; depth < 100; depth++) {
    bytes = sequence(bytes);
  }
  let reader = new DerReader(bytes);
  assert.throws(() => {
    for (;;) {
      reader = reader.enter(TAG.sequence);
    }
  }, /nested too deeply/);
});

test("read ∘ write = identity", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70_000 }), (octets) => {
      assert.deepEqual(
        Buffer.from(new DerReader(tlv(TAG.octetString, octets)).content(TAG.octetString)),
        Buffer.from(octets),
      );
    }),
    { numRuns: 40 },
  );
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 160n }), (value) => {
      const text = value.toString(16);
      const octets = hex(text.length % 2 === 0 ? text : `0${text}`);
      const back = new DerReader(unsignedInteger(octets)).integer();
      assert.ok((back[0] as number) < 0x80);
      assert.equal(BigInt(`0x${Buffer.from(back).toString("hex")}`), value);
    }),
  );
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(63)), (bits) => {
      const sorted = bits.toSorted((left, right) => left - right);
      assert.deepEqual(new DerReader(namedBitString(bits)).namedBits(), sorted);
    }),
  );
  fc.assert(
    fc.property(fc.integer({ min: Date.UTC(1950, 0) / 1000, max: Date.UTC(9999, 0) / 1000 }), (second) => {
      assert.equal(new DerReader(timeElement(second * 1000)).time(), second * 1000);
    }),
  );
  const oid = fc
    .tuple(fc.nat(2), fc.nat(39), fc.array(fc.nat(2 ** 31), { maxLength: 8 }))
    .map(([first, second, rest]) => [first, second, ...rest].join("."));
  fc.assert(
    fc.property(oid, (dotted) => {
      assert.equal(new DerReader(oidElement(dotted)).oid(), dotted);
    }),
  );
});

test("a concatenation is taken apart, and only up to its limit", () => {
  const parts = [sequence(hex("05 00")), sequence(), sequence(tlv(TAG.octetString, new Uint8Array(300)))];
  assert.deepEqual(
    splitDer(Buffer.concat(parts)).map((part) => part.length),
    parts.map((part) => part.length),
  );
  assert.throws(() => splitDer(Buffer.concat([...parts, Buffer.of(5, 0)])), /expected tag/);
  assert.throws(() => splitDer(Buffer.concat(Array(65).fill(sequence()))), /more than 64/);
});
