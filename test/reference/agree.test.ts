/** The fast evaluator and the slow one that reads like the specification decide the same, whatever they are given. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, describe, scenarioOf } from "./agree.ts";
import type { Scenario } from "./generate.ts";
import { Minter } from "./mint.ts";
import { shrink } from "./shrink.ts";

const SCENARIOS = 1_700;
const minter = new Minter();

/** What `decide` can answer; `killed` is a mesh's, not a policy's. */
const REASONS = [
  "no-policy",
  "allow-rule",
  "no-allow-matched",
  "deny-rule",
  "custom-denied",
  "plaintext-refused",
  "bad-token",
  "bad-request",
];

test("twenty thousand random decisions agree with the reference, every reason among them", () => {
  const reasons = new Map(REASONS.map((reason) => [reason, 0]));
  let pairs = 0;
  for (let seed = 1; seed <= SCENARIOS; seed++) {
    const found = compare(scenarioOf(seed, minter), (reason) => {
      pairs++;
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    });
    assert.equal(found, null, found === null ? "" : describe(found));
  }
  assert.ok(pairs >= 20_000);
  assert.deepEqual([...reasons.keys()], REASONS);
  for (const [reason, times] of reasons) {
    assert.ok(times >= pairs / 100, `${reason}: ${times} of ${pairs}`);
  }
});

test("a seed makes the same scenario again", () => {
  const strip = (seed: number) => JSON.stringify(scenarioOf(seed, minter).documents);
  assert.equal(strip(7), strip(7));
  assert.notEqual(strip(7), strip(8));
});

test("a failing scenario is made as small as it goes", () => {
  const scenario: Scenario = {
    ...scenarioOf(11, minter),
    documents: [7, 8, 9].flatMap((seed) => scenarioOf(seed, minter).documents),
  };
  const fails = (smaller: Scenario) =>
    JSON.stringify(smaller.documents).includes('"DENY"') && smaller.requests.length > 0 ? { scenario: smaller } : null;
  const { scenario: small } = shrink({ scenario }, fails);
  assert.equal(small.documents.length, 1);
  assert.equal(small.requests.length, 1);
  assert.deepEqual(small.documents[0]?.spec, { action: "DENY" });
});
