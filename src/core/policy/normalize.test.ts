import assert from "node:assert/strict";
import { test } from "node:test";
import { readVectors, withoutConformance } from "../../../test/conformance.ts";
import { normalizePath, PATH_NORMALIZATIONS, type PathNormalization } from "./normalize.ts";

interface Case {
  readonly group: string;
  readonly normalization?: PathNormalization;
  readonly in: string;
  readonly out: string;
}

test("Istio's normalisation vectors", { skip: withoutConformance() }, () => {
  const { cases } = readVectors("istio/path-normalization.json") as { cases: Case[] };
  assert.equal(cases.length, 345);
  for (const { group, normalization, in: input, out } of cases) {
    for (const mode of normalization === undefined ? PATH_NORMALIZATIONS : [normalization]) {
      assert.equal(normalizePath(input, mode) ?? "400", out, `${group}, ${mode}: ${input}`);
    }
  }
});

test("a path with nothing to normalise is returned as it is; the query is never touched", () => {
  for (const mode of PATH_NORMALIZATIONS) {
    assert.equal(normalizePath("/api/v1/payments?a=/../b//c%2F#d", mode), "/api/v1/payments?a=/../b//c%2F");
  }
});

test("bytes that HTTP does not allow in a target are refused", () => {
  for (const target of ["/a b", "/a\tb", "/\x7f", "/a\xe9", "/a?\x80", "/\0"]) {
    assert.equal(normalizePath(target, "NONE"), null, JSON.stringify(target));
  }
});
