import assert from "node:assert/strict";
import { test } from "node:test";
import { agentTtlMs, lifetimeFindings, maxSvidTtlMs } from "./lifetimes.ts";

const HOUR = 3_600_000;

test("a CA of 24 h signs SVIDs of up to 4 h in full", () => {
  assert.equal(maxSvidTtlMs(24 * HOUR), 4 * HOUR);
  assert.equal(maxSvidTtlMs(365 * 24 * HOUR), 7 * 24 * HOUR);
  assert.deepEqual(lifetimeFindings({}), []);
  const short = lifetimeFindings({ caTtlMs: 3 * HOUR });
  assert.deepEqual(
    short.map(({ field, hint }) => [field, hint]),
    [
      ["x509SvidTtl", "make them at most 30m, or the CA 6h"],
      ["agentTtl", "make them at most 30m, or the CA 6h"],
    ],
  );
  assert.match(short[0]?.message ?? "", /^X\.509-SVIDs of 1h are cut short by a CA of 3h/);
  assert.deepEqual(lifetimeFindings({ caTtlMs: 36_000, x509SvidTtlMs: 6_000, jwtSvidTtlMs: 6_000 }), []);
});

test("an agent's SVID lives as long as others, an hour at least where the CA allows it, or as configured", () => {
  assert.equal(agentTtlMs({}), HOUR);
  assert.equal(agentTtlMs({ x509SvidTtlMs: 10_000 }), HOUR);
  assert.equal(agentTtlMs({ x509SvidTtlMs: 3 * HOUR }), 3 * HOUR);
  assert.equal(agentTtlMs({ x509SvidTtlMs: 4_000, caTtlMs: 60_000 }), 10_000);
  assert.equal(agentTtlMs({ agentTtlMs: 60_000 }), 60_000);
});
