/** A real Envoy, with the filters that Istio's compiler would give it, is asked what the engine was: thousands of times. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { peer, skipWithout } from "../peers.ts";
import { compareWithEnvoy } from "./envoy-policy/compare.ts";

test("Envoy decides every random request as the engine does, and forwards the path that was decided on", async (t) => {
  if (skipWithout(t, "envoy")) {
    return;
  }
  const { requests, statuses, disagreements } = await compareWithEnvoy(peer("envoy") as string, {
    from: 1,
    scenarios: 90,
    requests: 20,
  });
  assert.deepEqual(disagreements.slice(0, 3), []);
  assert.ok(requests > 1_500, `${requests}`);
  for (const status of [200, 400, 401, 403, 0, -1]) {
    assert.ok((statuses.get(status) ?? 0) > 0, `no ${status} among ${JSON.stringify([...statuses])}`);
  }
});
