import assert from "node:assert/strict";
import { resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { Given } from "./flags.ts";
import { agentTarget, SOCKET_FLAG } from "./workload.ts";

function withEnvironment(t: TestContext, value: string | undefined): void {
  const before = process.env.SPIFFE_ENDPOINT_SOCKET;
  const set = (to: string | undefined) => {
    delete process.env.SPIFFE_ENDPOINT_SOCKET;
    if (to !== undefined) {
      process.env.SPIFFE_ENDPOINT_SOCKET = to;
    }
  };
  set(value);
  t.after(() => set(before));
}

test("the agent's socket: as named, a path or an address, else as the environment says", (t) => {
  const target = (...argv: readonly string[]) => agentTarget(new Given(SOCKET_FLAG, argv));
  withEnvironment(t, "unix:///run/env.sock");
  assert.equal(target("-socketPath", "/run/a.sock"), "unix:/run/a.sock");
  assert.equal(target("-socketPath", "unix:///run/a.sock"), "unix:/run/a.sock");
  assert.equal(target("-socketPath", "a.sock"), `unix:${resolve("a.sock")}`);
  assert.equal(target(), "unix:/run/env.sock");
});
