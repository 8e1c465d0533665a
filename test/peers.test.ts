import assert from "node:assert/strict";
import { test } from "node:test";
import { peer, skipWithout, without } from "./peers.ts";

test("a peer is a path or null, and its absence is a reason with its name", (t) => {
  const nowhere = "spire-agent";
  const before = process.env.SPIRE_AGENT;
  process.env.SPIRE_AGENT = "/does/not/exist";
  t.after(() => {
    if (before === undefined) {
      delete process.env.SPIRE_AGENT;
    } else {
      process.env.SPIRE_AGENT = before;
    }
  });
  assert.equal(peer(nowhere), null);
  assert.equal(without(nowhere), "needs spire-agent");
  const reasons: (string | undefined)[] = [];
  const context = { skip: (reason?: string) => reasons.push(reason) } as unknown as typeof t;
  assert.equal(skipWithout(context, nowhere), true);
  assert.deepEqual(reasons, ["needs spire-agent"]);
  assert.equal(without(), false);
});
