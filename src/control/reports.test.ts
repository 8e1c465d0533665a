import assert from "node:assert/strict";
import { test } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { DenialDocument } from "../core/api/admin.ts";
import { sidecarId, workloadId } from "../core/spiffe/id.ts";
import { Denials } from "./denials.ts";
import { DOMAIN, eventually, killOf, memoryIdentities, testControl, testService, testSvid } from "./fixture.ts";

const services = [testService("payment-service"), testService("printer", { namespace: "back" })];
const PRINTER = "spiffe://example.com/ns/back/sa/printer";

test("a denial is kept as it was told, with what was not said as null", async (t) => {
  const mesh = await testControl(t, { services });
  const sidecar = mesh.sidecar("production/payment-service");
  await sidecar.until((s) => s.pushes === 1);
  const nearestMiss = {
    kind: "AuthorizationPolicy",
    policy: "production/p",
    rule: 0,
    would: "be allowed if …",
    patch: [{ op: "add", path: "/x", value: 1 }],
  };
  const at = Date.UTC(2030, 0, 1);
  sidecar.report({
    denials: [
      {
        id: "a",
        time: timestampFromMs(at),
        source: PRINTER,
        sourceIp: "127.0.0.1",
        port: 8080,
        method: "GET",
        path: "/x",
        host: "payment-service",
        reason: "deny-rule",
        policy: "production/p",
        rule: 0,
        nearestMiss: JSON.stringify([nearestMiss]),
        snapshotVersion: 3,
      },
      { id: "b", time: timestampFromMs(at + 1), port: 5432, reason: "plaintext-refused" },
    ],
  });
  await eventually(async () => (await mesh.control.status()).denials.length === 2);
  const [newest, oldest] = (await mesh.control.status()).denials;
  assert.deepEqual(oldest, {
    id: "a",
    time: "2030-01-01T00:00:00.000Z",
    source: PRINTER,
    sourceIp: "127.0.0.1",
    destination: "payment-service",
    port: 8080,
    method: "GET",
    path: "/x",
    host: "payment-service",
    reason: "deny-rule",
    policy: "production/p",
    rule: 0,
    snapshotVersion: 3,
    nearestMiss,
    changes: [nearestMiss],
  });
  assert.deepEqual(
    [newest?.id, newest?.source, newest?.method, newest?.path, newest?.policy, newest?.rule, newest?.nearestMiss],
    ["b", null, null, null, null, null, null],
  );
});

test("dry runs: the latest counts of each sidecar, added up, until its stream ends", async (t) => {
  const mesh = await testControl(t, { services });
  const one = mesh.sidecar("production/payment-service");
  const other = mesh.sidecar("production/payment-service");
  await one.until((s) => s.pushes === 1);
  const count = { enforced: "allow", would: "deny", policy: "production/next", count: 2 };
  one.report({ dryRuns: { counts: [{ ...count, count: 1 }] } });
  one.report({ dryRuns: { counts: [count, { ...count, would: "perhaps" }] } });
  other.report({ dryRuns: { counts: [count, { enforced: "deny", would: "deny", count: 1 }] } });
  await eventually(async () => (await mesh.control.status()).dryRuns[0]?.count === 4);
  const at = { service: "payment-service" };
  assert.deepEqual((await mesh.control.status()).dryRuns, [
    { ...at, ...count, count: 4 },
    { ...at, enforced: "deny", would: "deny", policy: null, count: 1 },
  ]);
});

test("what a hostile sidecar reports is cut to size, and what makes no sense is left out", async (t) => {
  const mesh = await testControl(t, { services });
  const sidecar = mesh.sidecar("production/payment-service");
  await sidecar.until((s) => s.pushes === 1);
  const bad = {
    port: 1,
    reason: "x".repeat(1_000),
    path: "p".repeat(100_000),
    source: "not-a-spiffe-id",
    nearestMiss: "{",
  };
  sidecar.report({
    denials: [
      { ...bad, id: "" },
      { ...bad, id: "../../etc/passwd" },
      { ...bad, id: "x".repeat(65) },
      { ...bad, id: "ok", time: { seconds: 9_000_000_000_000n, nanos: 0 } },
    ],
    receipts: [{ order: "never-given", connectionsClosed: 5 }],
    identity: { spiffeId: "nobody", serial: "1" },
  });
  await eventually(async () => (await mesh.control.status()).denials.length === 1);
  const [denial] = (await mesh.control.status()).denials;
  assert.deepEqual([denial?.id, denial?.source, denial?.nearestMiss], ["ok", null, null]);
  assert.deepEqual([denial?.path?.length, denial?.reason.length], [2_048, 64]);
  assert.ok(!Number.isNaN(Date.parse(denial?.time ?? "")));
});

test("a stream that names no service of the mesh is refused", async (t) => {
  const mesh = await testControl(t, { services });
  const stranger = mesh.sidecar("production/nobody");
  await stranger.until((s) => s.error !== null);
  stranger.report({ denials: [{ id: "x", port: 1, reason: "r" }] });
  const honest = mesh.sidecar("production/payment-service");
  await honest.until((s) => s.pushes === 1);
  honest.report({ denials: [{ id: "y", port: 1, reason: "r" }] });
  await eventually(async () => (await mesh.control.status()).denials.length > 0);
  assert.deepEqual(
    (await mesh.control.status()).denials.map(({ id }) => id),
    ["y"],
  );
});

test("identities: what a sidecar serves with, else what was issued, and the server's own; nothing that has expired", async (t) => {
  const now = Date.now();
  const issued = (serial: string, notAfter: number) => ({ serial, notBefore: now - 1_000, notAfter });
  const identities = memoryIdentities([
    { spiffeId: workloadId(DOMAIN, "production", "payment-service"), svid: issued("aa", now + 50_000) },
    { spiffeId: workloadId(DOMAIN, "back", "printer"), svid: issued("bb", now + 60_000) },
    { spiffeId: workloadId(DOMAIN, "back", "batch"), svid: issued("cc", now - 1) },
    { spiffeId: workloadId(DOMAIN, "back", "idle"), svid: null },
    { spiffeId: sidecarId(DOMAIN), svid: issued("dd", now + 70_000) },
  ]);
  const mesh = await testControl(t, { services, identities });
  const sidecar = mesh.sidecar("production/payment-service");
  await sidecar.until((s) => s.pushes === 1);
  sidecar.reportIdentity({ ...testSvid(mesh.ca, workloadId(DOMAIN, "production", "payment-service")), serial: "ee" });
  const listed = async () => (await mesh.control.status()).identities;
  await eventually(async () => (await listed())[0]?.serial === "ee");
  assert.deepEqual(
    (await listed()).map(({ spiffeId, serial, service }) => [
      spiffeId.slice("spiffe://example.com".length),
      serial,
      service,
    ]),
    [
      ["/ns/production/sa/payment-service", "ee", "payment-service"],
      ["/ns/back/sa/printer", "bb", "printer"],
      ["/everyhop/sidecar", "dd", null],
      ["/spire/server", "01", null],
    ],
  );
  const text = await mesh.metrics.metrics();
  assert.match(text, /everyhop_control_svid_not_after_seconds\{service="payment-service",namespace="production"\} \d+/);
});

test("a kill waits for receipts, at most two seconds, and takes what is in force without one", async (t) => {
  const mesh = await testControl(t, { services });
  const both = [
    mesh.sidecar("production/payment-service", { closes: 1 }),
    mesh.sidecar("back/printer", { reports: false }),
  ];
  await Promise.all(both.map((sidecar) => sidecar.until((s) => s.pushes === 1)));
  const killed = await killOf(mesh, "kill", PRINTER);
  assert.deepEqual([killed.confirmed, killed.unconfirmed, killed.connectionsClosed], [2, [], 1]);
  assert.ok(killed.ms < 1_000, "who does not report is not waited for");
  assert.deepEqual(
    (await mesh.control.status()).kills.map(({ spiffeId }) => spiffeId),
    [PRINTER],
  );
});

test("a sidecar that refuses the snapshot with the kill is not counted as confirmed", async (t) => {
  const mesh = await testControl(t, { services });
  const refusing = mesh.sidecar("back/printer", { refuse: ({ kills }) => (kills.length > 0 ? "no" : null) });
  const good = mesh.sidecar("production/payment-service");
  await Promise.all([refusing, good].map((sidecar) => sidecar.until((s) => s.pushes === 1)));
  const killed = await killOf(mesh, "kill", PRINTER);
  assert.deepEqual([killed.confirmed, killed.total, killed.unconfirmed], [1, 2, ["printer"]]);
});

test("an identity that nothing has is cut off only when told to", async (t) => {
  const mesh = await testControl(t, { services: [testService("a")] });
  await mesh.sidecar("production/a").until((s) => s.pushes === 1);
  const stranger = "spiffe://partner.org/ns/x/sa/y";
  await assert.rejects(killOf(mesh, "kill", stranger), { code: "not-found" });
  assert.equal((await killOf(mesh, "kill", stranger, true)).confirmed, 1);
  assert.equal((await killOf(mesh, "restore", stranger)).confirmed, 1);
  await assert.rejects(killOf(mesh, "restore", stranger), { code: "not-found" });
});

test("denials: a ring for each service, found by id, newest first", () => {
  const denials = new Denials(4);
  const made = (id: string, second: number): DenialDocument => ({
    id,
    time: new Date(Date.UTC(2030, 0, 1, 0, 0, second)).toISOString(),
    source: null,
    sourceIp: null,
    destination: "x",
    port: 1,
    method: null,
    path: null,
    host: null,
    reason: "killed",
    policy: null,
    rule: null,
    snapshotVersion: 1,
    nearestMiss: null,
    changes: [],
  });
  denials.add("n/quiet", [made("quiet", 0)]);
  for (let at = 1; at <= 50; at++) {
    denials.add("n/loud", [made(`loud-${at}`, at)]);
  }
  assert.equal(denials.find("quiet")?.denial.id, "quiet", "a flood elsewhere does not push it out");
  assert.equal(denials.find("loud-40"), null);
  assert.ok([...denials.ids()].length <= 9);
  assert.deepEqual(
    denials.latest(2).map(({ id }) => id),
    ["loud-50", "loud-49"],
  );
  denials.keepOnly(new Set(["n/quiet"]));
  assert.deepEqual([...denials.ids()], ["quiet"]);
});
