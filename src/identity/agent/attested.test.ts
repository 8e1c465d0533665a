import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { realpathSync } from "node:fs";
import { test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { silentLog } from "../../io/log.ts";
import { processImage } from "../../io/process.ts";
import type { WorkloadAttestor } from "../attest/workload/attest.ts";
import { ProcessWatch } from "./attested.ts";
import { until } from "./fixture.ts";

const sleep = realpathSync("/bin/sleep");

function parts(working: { kubelet: boolean; unix: boolean; code?: "not-found" }) {
  const attestor = (kind: "kubelet" | "unix"): WorkloadAttestor => ({
    kind,
    async attest() {
      if (!working[kind]) {
        throw new EveryhopError(working.code ?? "unavailable", `${kind} is away`);
      }
      return [`${kind}:yes:1`];
    },
  });
  const attestors = [attestor("unix"), attestor("kubelet")];
  return new ProcessWatch({ attestors, needed: () => true, clock: new FakeClock(), log: silentLog });
}

test("what an attestor said of an unchanged process stays while it cannot be asked", async (t) => {
  const child = spawn("sh", ["-c", `read line; exec ${sleep} 60`], { stdio: ["pipe", "ignore", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  await once(child, "spawn");
  const pid = child.pid as number;
  await until(() => processImage(pid) !== processImage(process.pid), "the shell");
  const working: Parameters<typeof parts>[0] = { kubelet: true, unix: true };
  const watch = parts(working);
  t.after(() => watch.close());
  const watched = await watch.watch({ pid, pidfd: null, caller: null });
  const both = ["kubelet:yes:1", "unix:yes:1"];
  assert.deepEqual(watched.attestation.selectors, both);
  working.kubelet = false;
  assert.deepEqual((await watched.refresh()).selectors, both);
  assert.equal((await watched.refresh()).outcomes[1]?.error?.message, "kubelet is away");
  working.unix = false;
  assert.deepEqual((await watched.refresh()).selectors, both);
  working.unix = true;
  const image = processImage(pid);
  child.stdin?.write("go\n");
  await until(() => processImage(pid) !== image, "another program");
  assert.deepEqual((await watched.refresh()).selectors, ["unix:yes:1"], "of another program nothing earlier counts");
  working.unix = false;
  working.kubelet = true;
  assert.deepEqual((await watched.refresh()).selectors, ["kubelet:yes:1", "unix:yes:1"]);
  working.code = "not-found";
  assert.deepEqual((await watched.refresh()).selectors, ["kubelet:yes:1"], "an answer of no is one");
});

test("a process that nobody could attest has nothing to fall back on", async () => {
  const watch = parts({ kubelet: false, unix: false });
  await assert.rejects(watch.watch({ pid: process.pid, pidfd: null, caller: null }), { code: "unavailable" });
});
