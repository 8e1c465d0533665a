import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { parse, stringify } from "yaml";
import { testControl, testService } from "../../src/control/fixture.ts";

import { peer, skipWithout } from "../peers.ts";

const OURS = join(import.meta.dirname, "../../deploy/alerts/everyhop.rules.yaml");
const guide = (): string => join(peer("conformance") ?? "", "configs/prometheus-zero-trust-alerts.yaml");

interface Rule {
  readonly alert: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** One thing that happens, as the mesh's series show it, and whether an alert says so. */
interface Case {
  readonly alert: string;
  /** Series every 15 s; promtool's notation: `0x3 5x60` is four times 0, then 5 for good. */
  readonly series: Readonly<Record<string, string>>;
  /** Labels of the alert beside those of its rule; null: it must not fire. */
  readonly fires: Readonly<Record<string, string>> | null;
  readonly value?: string;
  readonly at?: string;
}

const BURST = "0x3 3x60";
const QUIET = "0x63";
const PAIR =
  'source_workload="printer",source_workload_namespace="back",destination_workload="payment-service",destination_workload_namespace="production"';
const NOBODY =
  'source_workload="unknown",source_workload_namespace="unknown",destination_workload="payment-service",destination_workload_namespace="production"';
const requests = (code: number, rest = "") =>
  `istio_requests_total{reporter="destination",${PAIR},request_protocol="http",response_code="${code}",connection_security_policy="mutual_tls"${rest}}`;
const both = { source_workload: "printer", destination_workload: "payment-service" };
const SVID = '{service="payment-service",namespace="production"}';

const CASES: readonly Case[] = [
  { alert: "AuthzPolicyDenied", series: { [requests(403)]: BURST, [requests(200)]: "0+10x63" }, fires: both },
  { alert: "AuthzPolicyDenied", series: { [requests(403)]: QUIET, [requests(200)]: "0+10x63" }, fires: null },
  // A counter that is born with its value, and stays there, has no rate: so the mesh's are there at 0 before they count.
  { alert: "AuthzPolicyDenied", series: { [requests(403)]: "_x3 3x60" }, fires: null },
  {
    alert: "MTLSHandshakeFailure",
    series: { [`envoy_ssl_connection_error_total{${NOBODY}}`]: BURST },
    fires: { source_workload: "unknown" },
  },
  { alert: "MTLSHandshakeFailure", series: { [`envoy_ssl_connection_error_total{${NOBODY}}`]: QUIET }, fires: null },
  { alert: "TCPConnectionDenied", series: { [`everyhop_tcp_denied_total{${PAIR}}`]: BURST }, fires: both },
  { alert: "TCPConnectionDenied", series: { [`everyhop_tcp_denied_total{${PAIR}}`]: QUIET }, fires: null },
  {
    alert: "HandshakeWithoutCertificate",
    series: { [`envoy_ssl_fail_verify_no_cert_total{${NOBODY}}`]: BURST },
    fires: { destination_workload: "payment-service" },
  },
  {
    alert: "HandshakeWithoutCertificate",
    series: { [`envoy_ssl_fail_verify_no_cert_total{${NOBODY}}`]: QUIET },
    fires: null,
  },
  {
    alert: "HandshakeWithBadCertificate",
    series: { [`envoy_ssl_fail_verify_error_total{${NOBODY}}`]: BURST },
    fires: { destination_workload: "payment-service" },
  },
  {
    alert: "PlaintextRefused",
    series: { [`everyhop_plaintext_refused_total{${NOBODY}}`]: BURST },
    fires: { destination_workload: "payment-service" },
  },
  { alert: "PlaintextRefused", series: { [`everyhop_plaintext_refused_total{${NOBODY}}`]: QUIET }, fires: null },
  { alert: "ServerWithWrongIdentity", series: { [`envoy_ssl_fail_verify_san_total{${PAIR}}`]: BURST }, fires: both },
  // Its policy and reason are labels: it is born with the first denial.
  {
    alert: "KilledIdentityActive",
    series: { [`everyhop_denials_total{${PAIR},reason="killed"}`]: "_x3 1x60" },
    fires: both,
  },
  {
    alert: "KilledIdentityActive",
    series: { [`everyhop_denials_total{${PAIR},reason="killed"}`]: BURST },
    fires: both,
  },
  {
    alert: "KilledIdentityActive",
    series: { [`everyhop_denials_total{${PAIR},reason="deny-rule"}`]: BURST },
    fires: null,
  },
  {
    alert: "CertificateNotRotated",
    // One hour of life, and at 50 minutes still the same certificate.
    series: {
      [`everyhop_control_svid_not_before_seconds${SVID}`]: "0x240",
      [`everyhop_control_svid_not_after_seconds${SVID}`]: "3600x240",
    },
    at: "50m",
    fires: { service: "payment-service", namespace: "production" },
    value: "0.16",
  },
  {
    alert: "CertificateNotRotated",
    // Renewed at half its life, as it should be.
    series: {
      [`everyhop_control_svid_not_before_seconds${SVID}`]: "0x120 1800x120",
      [`everyhop_control_svid_not_after_seconds${SVID}`]: "3600x120 5400x120",
    },
    at: "50m",
    fires: null,
  },
  {
    alert: "WorkloadCertificatesNotRotated",
    series: { 'everyhop_agent_svids_overdue{instance="a"}': "0x3 2x60" },
    fires: { instance: "a" },
    value: "2",
  },
  {
    alert: "WorkloadCertificatesNotRotated",
    series: { 'everyhop_agent_svids_overdue{instance="a"}': QUIET },
    fires: null,
  },
  {
    alert: "AgentCertificateNotRotated",
    series: {
      'everyhop_agent_own_svid_begin_timestamp_seconds{instance="a"}': "0x240",
      'everyhop_agent_own_svid_expiry_timestamp_seconds{instance="a"}': "3600x240",
    },
    at: "50m",
    fires: { instance: "a" },
    value: "0.16",
  },
  {
    alert: "AgentCertificateNotRotated",
    series: {
      'everyhop_agent_own_svid_begin_timestamp_seconds{instance="a"}': "0x120 1800x120",
      'everyhop_agent_own_svid_expiry_timestamp_seconds{instance="a"}': "3600x120 5400x120",
    },
    at: "50m",
    fires: null,
  },
  {
    alert: "AuthorityNotRotated",
    series: {
      'everyhop_server_ca_begin_timestamp_seconds{instance="s"}': "0x240",
      'everyhop_server_ca_expiry_timestamp_seconds{instance="s"}': "3600x240",
    },
    at: "56m",
    fires: { instance: "s" },
    value: "0.06",
  },
  {
    alert: "AuthorityNotRotated",
    // The next one signs since the fiftieth minute.
    series: {
      'everyhop_server_ca_begin_timestamp_seconds{instance="s"}': "0x200 1800x40",
      'everyhop_server_ca_expiry_timestamp_seconds{instance="s"}': "3600x200 5400x40",
    },
    at: "56m",
    fires: null,
  },
  {
    alert: "FederationStale",
    series: { 'everyhop_server_federation_up{trust_domain="other.org"}': "1x3 0x100" },
    at: "20m",
    fires: { trust_domain: "other.org" },
    value: "0",
  },
  {
    alert: "FederationStale",
    series: { 'everyhop_server_federation_up{trust_domain="other.org"}': "1x3 0x30 1x70" },
    at: "20m",
    fires: null,
  },
  {
    alert: "DatabaseAway",
    series: { 'everyhop_server_database_up{instance="s"}': "1x3 0x60" },
    fires: { instance: "s" },
    value: "0",
  },
  { alert: "DatabaseAway", series: { 'everyhop_server_database_up{instance="s"}': "1x63" }, fires: null },
  { alert: "PolicyRefused", series: { everyhop_control_problems: "0x3 1x60" }, fires: {} },
  { alert: "PolicyRefused", series: { everyhop_control_problems: "0x3 1x1 0x60" }, fires: null },
  {
    alert: "SnapshotRejected",
    series: { 'everyhop_control_proxies{state="rejected"}': "0x3 2x60" },
    fires: { state: "rejected" },
    value: "2",
  },
  {
    alert: "SidecarStale",
    series: { 'everyhop_control_proxies{state="stale"}': "0x3 1x60" },
    fires: { state: "stale" },
    value: "1",
  },
  {
    alert: "SidecarBehind",
    series: { 'everyhop_control_proxies{state="pending"}': "0x3 1x60" },
    fires: { state: "pending" },
    value: "1",
  },
  { alert: "ControlPlaneAbsent", series: { everyhop_control_world_version: "_x60" }, fires: {} },
  { alert: "ControlPlaneAbsent", series: { everyhop_control_world_version: "1x60" }, fires: null },
  {
    alert: "RecordsDropped",
    series: { 'everyhop_records_dropped_total{kind="denial"}': BURST },
    fires: { kind: "denial" },
  },
];

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-prometheus-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function rulesOf(file: string): readonly Rule[] {
  const { groups } = parse(readFileSync(file, "utf8")) as { groups: readonly { rules: readonly Rule[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

test("the rules are valid", (t) => {
  if (!skipWithout(t, "promtool", "conformance")) {
    assert.match(
      execFileSync(peer("promtool") ?? "", ["check", "rules", OURS, guide()], { encoding: "utf8" }),
      new RegExp(`SUCCESS: ${rulesOf(OURS).length} rules`),
    );
  }
});

test("each alert fires for what it is for, and not else, the guide's as they are", (t) => {
  if (skipWithout(t, "promtool", "conformance")) {
    return;
  }
  const rules = [...rulesOf(OURS), ...rulesOf(guide())];
  const named = new Set(CASES.filter(({ fires }) => fires !== null).map(({ alert }) => alert));
  assert.deepEqual(
    rules.map(({ alert }) => alert).filter((alert) => !named.has(alert)),
    [],
    "alerts without a case",
  );
  const document = {
    rule_files: [OURS, guide()],
    evaluation_interval: "15s",
    tests: CASES.map((each) => promtoolTest(each, rules)),
  };
  const file = join(scratch(t), "alerts.test.yaml");
  writeFileSync(file, stringify(document));
  assert.match(execFileSync(peer("promtool") ?? "", ["test", "rules", file], { encoding: "utf8" }), /SUCCESS/);
});

function promtoolTest({ alert, series, fires, value, at = "4m" }: Case, rules: readonly Rule[]): object {
  const rule = rules.find((each) => each.alert === alert);
  assert.ok(rule, `no rule \`${alert}\``);
  const filled = (text: string): string =>
    text
      .replace(/\{\{ \$labels\.(\w+) \}\}/g, (_, name: string) => fires?.[name] ?? "")
      .replaceAll("{{ $value }}", value ?? "");
  const expected = {
    exp_labels: { ...rule.labels, ...fires },
    exp_annotations: Object.fromEntries(Object.entries(rule.annotations).map(([name, text]) => [name, filled(text)])),
  };
  return {
    name: `${alert} ${fires === null ? "is quiet" : "fires"}`,
    interval: "15s",
    input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
    alert_rule_test: [{ eval_time: at, alertname: alert, ...(fires === null ? {} : { exp_alerts: [expected] }) }],
  };
}

test("a real Prometheus loads both files, scrapes the control plane and has its series", async (t) => {
  if (skipWithout(t, "prometheus", "conformance")) {
    return;
  }
  const mesh = await testControl(t, { services: [testService("payment-service")] });
  const server = createServer(async (_request, response) => response.end(await mesh.metrics.metrics()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const dir = scratch(t);
  const target = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const config = {
    global: { scrape_interval: "1s", evaluation_interval: "1s" },
    rule_files: [OURS, guide()],
    scrape_configs: [{ job_name: "everyhop", static_configs: [{ targets: [target] }] }],
  };
  writeFileSync(join(dir, "prometheus.yml"), stringify(config));
  const base = await startPrometheus(t, dir);
  const asked = async (
    path: string,
  ): Promise<{ data: { groups: Group[]; result: { value: [number, string] }[] } } | null> => {
    const response = await fetch(`${base}${path}`).catch(() => null);
    return response?.ok ? ((await response.json()) as never) : null;
  };
  const version = async () =>
    (await asked("/api/v1/query?query=everyhop_control_world_version"))?.data.result[0]?.value[1];
  const groups = async () => (await asked("/api/v1/rules"))?.data.groups ?? [];
  await soon(async () => (await version()) === "1");
  await soon(async () => (await groups()).flatMap(({ rules }) => rules).every(({ health }) => health === "ok"));
  assert.equal((await groups()).length, 3);
  await soon(async () => {
    const stale = await asked('/api/v1/query?query=everyhop_control_proxies{state="stale"}');
    return stale?.data.result[0]?.value[1] === "1";
  });
});

interface Group {
  readonly rules: readonly { readonly health: string }[];
}

async function startPrometheus(t: TestContext, dir: string): Promise<string> {
  const port = await freePort();
  const args = [
    `--config.file=${join(dir, "prometheus.yml")}`,
    `--storage.tsdb.path=${join(dir, "data")}`,
    `--web.listen-address=127.0.0.1:${port}`,
  ];
  const child = spawn(peer("prometheus") ?? "", args, { stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  t.after(async () => {
    child.kill();
    await ended;
  });
  return `http://127.0.0.1:${port}`;
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createTcpServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

async function soon(holds: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 30_000;
  while (!(await holds())) {
    assert.ok(Date.now() < end, "Prometheus did not get there");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
