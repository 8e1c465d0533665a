import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSpiffeId, parseTrustDomain, pathOf, spiffeIdFault, trustDomainOf, workloadId } from "./id.ts";

/** SPEC: SPIFFE-ID §2; the vocabulary of faults is go-spiffe's. */
const REFUSED: readonly (readonly [string, RegExp])[] = [
  ["", /cannot be empty/],
  ["example.com/a", /scheme is missing/],
  ["Spiffe://example.com/a", /scheme is missing/],
  ["https://example.com/a", /scheme is missing/],
  ["spiffe://", /trust domain is missing/],
  ["spiffe:///a", /trust domain is missing/],
  ["spiffe://Example.com/a", /lowercase/],
  ["spiffe://user@example.com/a", /characters are limited/],
  ["spiffe://example.com:80/a", /characters are limited/],
  ["spiffe://[::1]/a", /characters are limited/],
  ["spiffe://exam%70le.com/a", /characters are limited/],
  ["spiffe://example.com?q", /characters are limited/],
  ["spiffe://example.com/a?q", /path segment characters/],
  ["spiffe://example.com/a#f", /path segment characters/],
  ["spiffe://example.com/%61", /path segment characters/],
  ["spiffe://example.com/ä", /path segment characters/],
  ["spiffe://example.com/a\u0000", /path segment characters/],
  ["spiffe://example.com/", /trailing slash/],
  ["spiffe://example.com/a/", /trailing slash/],
  ["spiffe://example.com//a", /empty segments/],
  ["spiffe://example.com/a//b", /empty segments/],
  ["spiffe://example.com/.", /dot segments/],
  ["spiffe://example.com/a/../b", /dot segments/],
  [`spiffe://${"a".repeat(256)}/a`, /255/],
  [`spiffe://example.com/${"a".repeat(2048)}`, /2048/],
];

for (const [text, reason] of REFUSED) {
  test(`refused: ${text.slice(0, 40)}`, () => {
    assert.match(spiffeIdFault(text) ?? "", reason);
    assert.throws(() => parseSpiffeId(text), { code: "invalid-argument" });
  });
}

for (const text of [
  "spiffe://example.com",
  "spiffe://10.0.0.1/a",
  "spiffe://a_b-c.d/A/..b/.../x_y-Z.9",
  `spiffe://t/${"a".repeat(2037)}`,
]) {
  test(`accepted: ${text.slice(0, 40)}`, () => {
    const id = parseSpiffeId(text);
    assert.equal(`spiffe://${trustDomainOf(id)}${pathOf(id)}`, text);
  });
}

test("a workload's default identity is Istio's form", () => {
  assert.equal(
    workloadId(parseTrustDomain("spiffe://example.com"), "data", "db"),
    "spiffe://example.com/ns/data/sa/db",
  );
});
