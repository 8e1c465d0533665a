import assert from "node:assert/strict";
import { test } from "node:test";
import { socketTarget, workloadSocket } from "./socket.ts";

test("addresses are absolute paths, bare or as unix URLs", () => {
  for (const good of ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"]) {
    assert.equal(socketTarget(good), "unix:/run/a.sock");
  }
  for (const bad of [
    "",
    "a.sock",
    "unix://a.sock",
    "unix://host/a.sock",
    "tcp://127.0.0.1:1",
    "unix:///a.sock?x",
    "unix:///a#b",
  ]) {
    assert.throws(() => socketTarget(bad), /is not a unix socket's address/, bad);
  }
});

test("what is given wins over the environment, and that over the default", () => {
  assert.equal(workloadSocket("unix:///a", { SPIFFE_ENDPOINT_SOCKET: "unix:///b" }), "unix:///a");
  assert.equal(workloadSocket(undefined, { SPIFFE_ENDPOINT_SOCKET: "unix:///b" }), "unix:///b");
  assert.equal(workloadSocket(undefined, {}), "unix:///run/everyhop/agent.sock");
});
