import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Clock } from "../core/base/clock.ts";
import { systemClock } from "../io/clock.ts";
import { DOMAIN, eventually, killOf, testControl, testService } from "./fixture.ts";
import { lastVersion } from "./version-file.ts";

/** Waits longer where the control plane would give up on somebody: a machine under load is not what is tested. */
const patient: Clock = {
  now: () => systemClock.now(),
  after: (delayMs, fire) => systemClock.after(delayMs >= 1_000 ? delayMs * 20 : delayMs, fire),
};

const POLICY = (name: string, app: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ${name}, namespace: production}
spec:
  selector: {matchLabels: {app: ${app}}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/production/sa/service-1]}}]
`;

test("200 sidecars: a change reaches the one it touches, a kill all of them, in well under a second", async (t) => {
  const services = Array.from({ length: 200 }, (_, index) => testService(`service-${index}`));
  const mesh = await testControl(t, { services, files: { "a.yaml": POLICY("a", "service-7") }, clock: patient });
  const sidecars = services.map(({ name }) => mesh.sidecar(`production/${name}`, { closes: 1 }));
  await Promise.all(sidecars.map((sidecar) => sidecar.until((s) => s.pushes === 1)));
  const pushes = () => sidecars.reduce((sum, sidecar) => sum + sidecar.pushes, 0);
  assert.equal(pushes(), 200);

  mesh.save("b.yaml", POLICY("b", "service-9"));
  const saved = performance.now();
  await sidecars[9]?.until((s) => s.pushes === 2);
  t.diagnostic(`a saved change: ${Math.round(performance.now() - saved)} ms`);
  assert.equal(pushes(), 201);
  await eventually(async () =>
    (await mesh.control.status()).proxies.every((p) => p.state === "synced" && p.version === 2),
  );

  const killed = await killOf(mesh, "kill", `spiffe://${DOMAIN}/ns/production/sa/service-3`);
  assert.deepEqual([killed.confirmed, killed.total, killed.connectionsClosed], [200, 200, 200]);
  t.diagnostic(`a kill, confirmed by 200: ${killed.ms} ms`);
});

test("a sidecar that does not answer holds up nobody else, and costs one response", async (t) => {
  const services = [testService("mute"), testService("quick")];
  const mesh = await testControl(t, { services });
  const mute = mesh.sidecar("production/mute", { mute: true });
  const quick = mesh.sidecar("production/quick");
  await Promise.all([mute.until((s) => s.pushes === 1), quick.until((s) => s.pushes === 1)]);
  for (let change = 1; change <= 5; change++) {
    mesh.services.set([...services, testService(`another-${change}`)]);
    await quick.until((s) => s.snapshot?.upstreams.at(-1)?.name === `another-${change}`);
  }
  assert.equal(mute.pushes, 1);
  const state = (await mesh.control.status()).proxies.find(({ service }) => service === "mute");
  assert.deepEqual([state?.state, state?.version], ["pending", 0]);
});

test("a snapshot that is refused is reported, and ends with one that is taken", async (t) => {
  const mesh = await testControl(t, { services: [testService("a")] });
  const sidecar = mesh.sidecar("production/a", {
    refuse: ({ upstreams }) => (upstreams.some(({ name }) => name === "bad") ? "no such protocol" : null),
  });
  await sidecar.until((s) => s.pushes === 1);
  const state = async () => (await mesh.control.status()).proxies[0];
  mesh.services.set([testService("a"), testService("bad")]);
  await eventually(async () => (await state())?.state === "rejected");
  assert.deepEqual([(await state())?.version, (await state())?.error], [1, "no such protocol"]);
  assert.match(await mesh.metrics.metrics(), /everyhop_control_proxies\{state="rejected"\} 1/);
  mesh.services.set([testService("a"), testService("good")]);
  await eventually(async () => (await state())?.state === "synced");
  assert.deepEqual([(await state())?.version, (await state())?.error], [3, null]);
});

test("who comes back with what it holds is sent nothing, and is in sync", async (t) => {
  const mesh = await testControl(t, { services: [testService("a"), testService("b")] });
  const before = mesh.sidecar("production/a");
  await before.until((s) => s.pushes === 1);
  await eventually(async () => (await mesh.control.status()).proxies[0]?.state === "synced");
  const initialVersions = { ...before.versions };
  before.close();
  await eventually(async () => (await mesh.control.status()).proxies[0]?.state === "stale");
  assert.equal((await mesh.control.status()).proxies[0]?.version, 1, "what it went away with");
  const after = mesh.sidecar("production/a", { initialVersions });
  await eventually(async () => (await mesh.control.status()).proxies[0]?.state === "synced");
  assert.equal(after.pushes, 0);
  after.close();
  await eventually(async () => (await mesh.control.status()).proxies[0]?.state === "stale");
  mesh.services.set([testService("a"), testService("c")]);
  const later = mesh.sidecar("production/a", { initialVersions });
  await later.until((s) => s.pushes === 1);
  assert.deepEqual(
    later.snapshot?.upstreams.map(({ name }) => name),
    ["c"],
  );
});

test("a service that is taken away loses its snapshot, and its sidecar is told", async (t) => {
  const mesh = await testControl(t, { services: [testService("a"), testService("b")] });
  const sidecar = mesh.sidecar("production/b");
  await sidecar.until((s) => s.pushes === 1);
  mesh.services.set([testService("a")]);
  await sidecar.until((s) => s.pushes === 2);
  assert.deepEqual(sidecar.versions, {});
});

test("several sidecars of one service count as their worst", async (t) => {
  const mesh = await testControl(t, { services: [testService("a")] });
  const one = mesh.sidecar("production/a");
  const two = mesh.sidecar("production/a", { mute: true });
  await Promise.all([one.until((s) => s.pushes === 1), two.until((s) => s.pushes === 1)]);
  const state = async () => (await mesh.control.status()).proxies[0]?.state;
  assert.equal(await state(), "pending");
  two.close();
  await eventually(async () => (await state()) === "synced");
});

test("versions go on where they were after a restart, and what cannot be read begins anew", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-version-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const versionFile = join(dir, "version");
  const first = await testControl(t, { versionFile });
  first.services.set([testService("a"), testService("b")]);
  assert.equal((await first.control.status()).version, 2);
  await first.control.close();
  const second = await testControl(t, { versionFile });
  assert.equal((await second.control.status()).version, 3);
  for (const broken of ["", "x", "-3", "1.5", "99999999999999"]) {
    writeFileSync(versionFile, broken);
    assert.equal(lastVersion(versionFile), 0, broken);
  }
});
