import assert from "node:assert/strict";
import { test } from "node:test";
import { SerialSet } from "./serials.ts";

test("serial numbers: each is new once, among many", () => {
  const set = new SerialSet();
  const serial = (index: number): string =>
    `${((index * 2_654_435_761) % 2 ** 32).toString(16).padStart(8, "0")}${index.toString(16).padStart(8, "0")}`;
  for (let index = 1; index <= 5_000; index++) {
    assert.ok(set.add(serial(index)));
  }
  for (let index = 1; index <= 5_000; index++) {
    assert.equal(set.add(serial(index)), false);
  }
});
