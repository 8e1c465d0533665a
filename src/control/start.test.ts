import assert from "node:assert/strict";
import { readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { peer, without } from "../../test/peers.ts";
import type { WhyDocument } from "../core/api/admin.ts";
import { sidecarId } from "../core/spiffe/id.ts";
import {
  DOMAIN,
  documentOf,
  eventually,
  id,
  killOf,
  testAuthority,
  testControl,
  testService,
  testSvid,
} from "./fixture.ts";

const ALLOW = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payments, namespace: production}
spec:
  selector: {matchLabels: {app: payment-service}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/production/sa/api-gateway]}}]
`;
const services = [
  testService("payment-service"),
  testService("api-gateway"),
  testService("printer", { namespace: "back" }),
];

test("a sidecar gets its slice, and a saved change reaches those it touches in well under a second", async (t) => {
  const mesh = await testControl(t, { services, files: { "a.yaml": ALLOW } });
  const payment = mesh.sidecar("production/payment-service");
  const printer = mesh.sidecar("back/printer");
  await Promise.all([payment.until((s) => s.pushes === 1), printer.until((s) => s.pushes === 1)]);
  assert.equal(payment.snapshot?.policies.length, 1);
  assert.equal(payment.snapshot?.workload?.spiffeId, "spiffe://example.com/ns/production/sa/payment-service");
  assert.deepEqual(payment.snapshot?.upstreams.map(({ name }) => name).sort(), ["api-gateway", "printer"]);
  assert.equal(printer.snapshot?.policies.length, 0);

  mesh.save("b.yaml", ALLOW.replace("payments", "more"));
  const saved = performance.now();
  await payment.until((s) => s.pushes === 2);
  const took = performance.now() - saved;
  t.diagnostic(`a saved change in force after ${Math.round(took)} ms`);
  assert.ok(took < 1_000, `${took} ms`);
  assert.equal(payment.snapshot?.policies.length, 2);
  await eventually(async () => (await mesh.control.status()).proxies.filter((p) => p.state === "synced").length === 2);
  const { version, proxies } = await mesh.control.status();
  assert.equal(version, 2);
  assert.deepEqual(
    proxies.map((proxy) => [proxy.service, proxy.version, proxy.state]),
    [
      ["payment-service", 2, "synced"],
      ["api-gateway", 0, "stale"],
      ["printer", 2, "synced"],
    ],
  );
  assert.equal(printer.pushes, 1, "what does not touch it is not pushed");
});

test("a kill is confirmed by every sidecar, and undone", async (t) => {
  const mesh = await testControl(t, { services });
  const sidecars = ["production/payment-service", "production/api-gateway", "back/printer"].map((node) =>
    mesh.sidecar(node, { closes: 2 }),
  );
  await Promise.all(sidecars.map((sidecar) => sidecar.until((s) => s.pushes === 1)));
  const killed = await killOf(mesh, "kill", "spiffe://example.com/ns/back/sa/printer");
  assert.deepEqual([killed.confirmed, killed.total, killed.unconfirmed, killed.connectionsClosed], [3, 3, [], 6]);
  t.diagnostic(`kill confirmed by 3 sidecars in ${killed.ms} ms`);
  assert.ok(killed.ms < 500);
  const again = await killOf(mesh, "kill", "spiffe://example.com/ns/back/sa/printer");
  assert.equal(again.order, killed.order);
  assert.deepEqual([again.confirmed, again.connectionsClosed], [3, 6]);
  const restored = await killOf(mesh, "restore", "spiffe://example.com/ns/back/sa/printer");
  assert.deepEqual([restored.order, restored.confirmed], [killed.order, 3]);
  assert.deepEqual(sidecars[0]?.snapshot?.kills, []);
});

test("only a sidecar's identity, of our own authority, opens the control plane", async (t) => {
  const mesh = await testControl(t, { services });
  const strangers = [
    null,
    testSvid(mesh.ca, id("spiffe://example.com/ns/back/sa/printer")),
    testSvid(testAuthority(), sidecarId(DOMAIN)),
    testSvid(mesh.ca, sidecarId(DOMAIN), { notAfterMs: Date.now() - 1_000 }),
    testSvid(mesh.ca, id("spiffe://other.org/everyhop/sidecar")),
  ];
  for (const svid of strangers) {
    const stranger = mesh.sidecar("production/payment-service", { svid, reports: false });
    await stranger.until((s) => s.error !== null);
    assert.equal(stranger.pushes, 0);
  }
});

test("an unknown node is told so, with what it may have meant", async (t) => {
  const mesh = await testControl(t, { services });
  const lost = mesh.sidecar("production/payment-servise");
  await lost.until((s) => s.error !== null);
  assert.equal(lost.error?.code, 5);
  assert.match(lost.error?.details ?? "", /no service `production\/payment-servise` is registered/);
});

test("a rename over the file is heard of", async (t) => {
  const mesh = await testControl(t, { services, files: { "a.yaml": ALLOW } });
  const payment = mesh.sidecar("production/payment-service");
  await payment.until((s) => s.pushes === 1);
  mesh.save(".a.yaml.swp", ALLOW.replace("api-gateway", "printer"));
  renameSync(join(mesh.dir, "policies", ".a.yaml.swp"), join(mesh.dir, "policies", "a.yaml"));
  await payment.until((s) => s.pushes === 2);
  assert.match(payment.snapshot?.policies[0] ?? "", /printer/);
});

test("an invalid file is refused with its place, what was good stays, and the other files go on", async (t) => {
  const mesh = await testControl(t, { services, files: { "a.yaml": ALLOW } });
  const payment = mesh.sidecar("production/payment-service");
  await payment.until((s) => s.pushes === 1);
  mesh.save("a.yaml", ALLOW.replace("action: ALLOW", "acton: ALLOW"));
  await eventually(async () => (await mesh.control.status()).problems.length === 1);
  const { problems, version, policies } = await mesh.control.status();
  const [problem] = problems;
  assert.deepEqual(
    [problem?.severity, problem?.file, problem?.line, problem?.column, problem?.path],
    ["error", "policies/a.yaml", 6, 3, "spec.acton"],
  );
  assert.match(problem?.hint ?? "", /did you mean `action`\?/);
  assert.deepEqual([version, policies.length, payment.pushes], [1, 1, 1]);
  assert.match(await mesh.metrics.metrics(), /everyhop_control_problems 1\n/);

  mesh.save("b.yaml", ALLOW.replace("payments", "second"));
  await payment.until((s) => s.pushes === 2);
  assert.equal(payment.snapshot?.policies.length, 2);
  mesh.save("a.yaml", ALLOW.replace("api-gateway", "printer"));
  await payment.until((s) => s.pushes === 3);
  assert.deepEqual((await mesh.control.status()).problems, []);
});

test("what is not valid from the start is not started", async (t) => {
  const files = { "a.yaml": ALLOW.replace("ALLOW", "ALOW") };
  await assert.rejects(testControl(t, { services, files }), (error: { code?: string; issues?: readonly object[] }) => {
    assert.deepEqual([error.code, error.issues?.length], ["config-invalid", 1]);
    return true;
  });
  await assert.rejects(testControl(t, { services, meshConfig: { rootNamspace: "x" } }), {
    code: "config-invalid",
    message: /^meshConfig\.rootNamspace: unknown field/,
  });
});

test("a comment is a new version, and no push; another file before it is none either", async (t) => {
  const mesh = await testControl(t, { services, files: { "m.yaml": ALLOW } });
  const payment = mesh.sidecar("production/payment-service");
  await payment.until((s) => s.pushes === 1);
  const inForce = async () => (await mesh.control.status()).proxies[0]?.version;
  mesh.save("m.yaml", `# who may pay\n${ALLOW}`);
  await eventually(async () => (await inForce()) === 2);
  mesh.save("a.yaml", ALLOW.replace("payments", "other").replace("app: payment-service", "app: api-gateway"));
  await eventually(async () => (await inForce()) === 3);
  assert.equal(payment.pushes, 1);
  assert.equal((await mesh.control.status()).policies.at(-1)?.source, "policies/m.yaml:2");
});

test("the published guide's files are in force as they are", { skip: without("conformance") }, async (t) => {
  const names = ["istio-peer-authentication.yaml", "authz-payment-service.yaml", "authz-database-access.yaml"];
  const read = (name: string) => readFileSync(join(peer("conformance") ?? "", "configs", name), "utf8");
  const guide = [
    testService("api-gateway"),
    testService("payment-service"),
    testService("user-service"),
    testService("postgres-proxy", { namespace: "data", protocol: "tcp", port: 5432 }),
  ];
  const files = Object.fromEntries(names.map((name) => [name, read(name)]));
  const mesh = await testControl(t, { services: guide, files });
  const { policies, problems } = await mesh.control.status();
  assert.deepEqual(problems, []);
  assert.deepEqual(
    policies.map(({ name, findings }) => [name, findings.filter(({ severity }) => severity !== "info")]),
    [
      ["data/database-access", []],
      ["production/payment-service-access", []],
      ["production/payment-service-deny-all", []],
      ["istio-system/default", []],
    ],
  );
  const payment = mesh.sidecar("production/payment-service");
  await payment.until((s) => s.pushes === 1);
  assert.equal(payment.snapshot?.policies.length, 3);
});

test("why says what the rule says, and what is allowed", async (t) => {
  const deny = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-printer, namespace: production}
spec:
  action: DENY
  rules:
  - from: [{source: {namespaces: [back]}}]
    to: [{operation: {methods: [PUT, POST]}}, {operation: {paths: ["/x*"]}}]
    when: [{key: "request.headers[x-a]", values: ["1"], notValues: ["2"]}]
`;
  const mesh = await testControl(t, { services, files: { "a.yaml": ALLOW, "b.yaml": deny } });
  const payment = mesh.sidecar("production/payment-service");
  await payment.until((s) => s.pushes === 1);
  payment.report({ denials: [{ id: "d", port: 8080, reason: "deny-rule", policy: "production/no-printer", rule: 0 }] });
  await eventually(async () => (await mesh.control.status()).denials.length === 1);
  const why = await documentOf<WhyDocument>(mesh.control.admin.why, { id: "d" });
  assert.equal(
    why.ruleText,
    "from namespaces back; to methods PUT, POST or paths /x*; when request.headers[x-a] is 1; when request.headers[x-a] is not 2",
  );
  assert.deepEqual(why.allowed, [
    "from principals cluster.local/ns/production/sa/api-gateway (production/payments, rule 0)",
  ]);
});
