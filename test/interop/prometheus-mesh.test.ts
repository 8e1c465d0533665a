import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { promisify } from "node:util";
import { stringify } from "yaml";
import type { MeshDocument } from "../../src/run/up/document.ts";
import { peer, skipWithout } from "../peers.ts";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "../..");
const EVERYHOP = join(ROOT, "bin/everyhop.js");
const OURS = join(ROOT, "deploy/alerts/everyhop.rules.yaml");

/** Answers anything, to HTTP and to TCP alike. */
const SERVICE = `import { createServer } from "node:net";
createServer((socket) => {
  socket.on("error", () => socket.destroy());
  socket.once("data", () => socket.end("HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\nconnection: close\\r\\n\\r\\n"));
}).listen(Number(process.env.PORT), process.env.HOST);
`;

const service = (namespace: string, port: number, rest: object = {}) => ({
  namespace,
  port,
  command: ["node", "service.mjs"],
  ...rest,
});

const MESH = {
  trustDomain: "example.com",
  policies: ["policies/"],
  services: {
    "api-gateway": service("production", 8080, { labels: { app: "api-gateway" } }),
    "payment-service": service("production", 8080, { labels: { app: "payment-service" } }),
    "postgres-proxy": service("data", 5432, { labels: { app: "postgres-proxy" }, protocol: "tcp" }),
    printer: service("office", 9100, { labels: { app: "printer" } }),
  },
};

test("after an attack on a mesh that runs, its own series raise the guide's alerts and ours", async (t) => {
  if (skipWithout(t, "promtool", "conformance")) {
    return;
  }
  const guide = join(peer("conformance") ?? "", "configs");
  const dir = mkdtempSync(join(tmpdir(), "everyhop-alerts-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const mesh = await startMesh(t, dir, guide);
  const before = await scrape(mesh);
  await attack(mesh);
  const after = await scrape(mesh);

  const series = [...after]
    .filter(([name]) => /^(istio_requests_total|envoy_ssl_|everyhop_)/.test(name))
    .map(([name, value]) => {
      // Five minutes as they were before the attack, then as they are after it.
      const was = before.get(name);
      return { series: name, values: `${was === undefined ? "_" : was}x20 ${value}x20` };
    });
  const both = { source_workload: "printer", destination_workload: "payment-service" };
  const at = { destination_workload: "payment-service" };
  const raised: readonly [string, Record<string, string>][] = [
    ["AuthzPolicyDenied", { ...both, severity: "warning" }],
    ["MTLSHandshakeFailure", { source_workload: "unknown", severity: "critical" }],
    ["TCPConnectionDenied", { ...both, destination_workload: "postgres-proxy", severity: "warning" }],
    ["HandshakeWithoutCertificate", { ...at, severity: "critical" }],
    ["PlaintextRefused", { ...at, severity: "critical" }],
  ];
  const firing = await alertsOf(dir, [OURS, join(guide, "prometheus-zero-trust-alerts.yaml")], series, "8m");
  const quiet = await alertsOf(dir, [OURS, join(guide, "prometheus-zero-trust-alerts.yaml")], series, "4m");
  assert.deepEqual(quiet, [], "before the attack all is quiet");
  for (const [alertname, labels] of raised) {
    const found = firing.filter((alert) => alert.alertname === alertname);
    assert.deepEqual(found, [{ alertname, ...labels }], alertname);
  }
});

/** A mesh with the guide's policies, started by the command and ended with the test. */
async function startMesh(t: TestContext, dir: string, guide: string): Promise<MeshDocument> {
  mkdirSync(join(dir, "policies"));
  for (const name of ["istio-peer-authentication.yaml", "authz-payment-service.yaml", "authz-database-access.yaml"]) {
    copyFileSync(join(guide, name), join(dir, "policies", name));
  }
  writeFileSync(join(dir, "service.mjs"), SERVICE);
  writeFileSync(join(dir, "everyhop.yaml"), stringify(MESH));
  t.after(() => run(EVERYHOP, ["down", dir]));
  const { stdout } = await run(EVERYHOP, ["up", dir, "--detach", "--json"]);
  return JSON.parse(stdout) as MeshDocument;
}

/** Every series of every process of the mesh, by name and labels. */
async function scrape(mesh: MeshDocument): Promise<Map<string, number>> {
  const series = new Map<string, number>();
  for (const url of [mesh.metrics, ...Object.values(mesh.services).map(({ metrics }) => metrics)]) {
    const text = await (await fetch(url)).text();
    for (const [, name, value] of text.matchAll(/^([a-z_]\w*(?:\{.*\})?) ([-+.\de]+)$/gim)) {
      series.set(name as string, (series.get(name as string) ?? 0) + Number(value));
    }
  }
  return series;
}

/** From printer's place: a request, a TCP connection, a handshake without a certificate, and plaintext. */
async function attack({ services }: MeshDocument): Promise<void> {
  const printer = services.printer?.outbound ?? {};
  const { status } = await fetch(`http://${printer["payment-service"]}/api/v1/payments`, { method: "POST" });
  assert.equal(status, 403);
  const [paymentHost, paymentPort] = (services["payment-service"]?.inbound ?? "").split(":");
  const inbound = { host: paymentHost ?? "", port: Number(paymentPort) };
  const [host, port] = (printer["postgres-proxy"] ?? "").split(":");
  assert.equal(await answerOf(connect({ host: host ?? "", port: Number(port) })), "");
  assert.equal(await answerOf(connectTls({ ...inbound, rejectUnauthorized: false })), "");
  assert.equal(await answerOf(connect(inbound)), "");
}

/** What comes back for a few bytes until the connection ends. */
function answerOf(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let answer = "";
    socket.on("data", (chunk) => {
      answer += chunk.toString();
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(answer));
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  });
}

type Alert = Readonly<Record<string, string>> & { readonly alertname: string };

/** The alerts that fire `at` a time: promtool names them when it is told that none does. */
async function alertsOf(
  dir: string,
  rules: readonly string[],
  series: readonly { series: string; values: string }[],
  at: string,
): Promise<Alert[]> {
  const query = 'ALERTS{alertstate="firing"}';
  const expectation = { expr: query, eval_time: at, exp_samples: [] };
  const document = {
    rule_files: rules,
    evaluation_interval: "15s",
    tests: [{ interval: "15s", input_series: series, promql_expr_test: [expectation] }],
  };
  const file = join(dir, `alerts-${at}.yaml`);
  writeFileSync(file, stringify(document, { lineWidth: 0 }));
  let output = "";
  try {
    output = execFileSync(peer("promtool") ?? "", ["test", "rules", file], { encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    output = `${stdout}\n${stderr}`;
  }
  assert.match(output, /SUCCESS|got:/, output);
  return [...output.matchAll(/\{(__name__="ALERTS".*?)\} 1E\+00/g)].map(([, labels]) => {
    const pairs = [...(labels ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]);
    const { __name__: _name, alertstate: _state, ...rest } = Object.fromEntries(pairs) as Record<string, string>;
    return rest as Alert;
  });
}
