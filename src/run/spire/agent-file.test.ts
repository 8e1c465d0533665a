import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { EveryhopError, type Issue } from "../../core/base/errors.ts";
import { type AgentFile, loadAgentFile } from "../agent-config.ts";

function read(t: TestContext, text: string, name = "spire-agent.conf"): AgentFile {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-spire-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, name);
  writeFileSync(file, text);
  return loadAgentFile(file);
}

function faults(t: TestContext, text: string): readonly Issue[] {
  try {
    read(t, text);
  } catch (error) {
    assert.ok(error instanceof EveryhopError && error.code === "config-invalid", String(error));
    return error.issues;
  }
  return [];
}

const LEAST = 'trust_domain = "a"\n server_address = "s"\n server_port = "8081"\n trust_bundle_path = "/b.pem"\n';

test("SPIRE's example agent", (t) => {
  const { config, findings } = read(
    t,
    `agent {
  data_dir = "/var/lib/spire"
  log_level = "DEBUG"
  trust_domain = "example.org"
  server_address = "server.internal"
  server_port = 8081
  socket_path = "/run/spire/agent.sock"
  admin_socket_path = "/run/spire/admin.sock"
  trust_bundle_path = "/etc/spire/bundle.pem"
  join_token_file = "/etc/spire/token"
  x509_svid_cache_max_size = 500
  experimental { broker { socket_path = "/run/spire/broker.sock" brokers = [{ id = "spiffe://example.org/ztunnel" }] } }
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = "/var/lib/spire" } }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
  WorkloadAttestor "k8s" { plugin_data { skip_kubelet_verification = true node_name_env = "MY_NODE_NAME" } }
}
telemetry { Prometheus { host = "127.0.0.1" port = 9989 } }
health_checks { listener_enabled = true bind_port = 8091 }
`,
  );
  assert.equal(config.trustDomain, "example.org");
  assert.equal(config.dataDir, "/var/lib/spire");
  assert.equal(config.socket, "/run/spire/agent.sock");
  assert.equal(config.adminSocket, "/run/spire/admin.sock");
  assert.equal(config.brokerSocket, "/run/spire/broker.sock");
  assert.deepEqual(config.brokers, ["spiffe://example.org/ztunnel"]);
  assert.equal(config.joinTokenFile, "/etc/spire/token");
  const { unix, k8s } = config.workloadAttestors;
  assert.deepEqual(unix, { discoverWorkloadPath: true });
  assert.deepEqual(k8s, { skipKubeletVerification: true, nodeNameEnv: "MY_NODE_NAME" });
  assert.equal(config.metrics, "127.0.0.1:9989");
  assert.equal(config.health?.listen.port, 8091);
  assert.equal(config.logLevel, "debug");
  assert.deepEqual(
    findings.filter(({ severity }) => severity === "warning").map(({ path }) => path),
    ["agent.x509_svid_cache_max_size"],
  );
});

test("SPIRE's workload attestors", (t) => {
  const { config, findings } = read(
    t,
    `agent {
 ${LEAST} }
plugins {
  WorkloadAttestor "unix" { plugin_data { workload_size_limit = -1 } }
  WorkloadAttestor "systemd" {}
  WorkloadAttestor "docker" { plugin_data { docker_socket_path = "unix:///d.sock" docker_version = "1.44" } }
  WorkloadAttestor "k8s" {
    plugin_data {
      kubelet_secure_port = 10251
      kubelet_read_only_port = 0
      skip_kubelet_verification = true
      token_path = "/token"
      node_name_env = "NODE"
      max_poll_attempts = 5
      poll_retry_interval = "1s"
      disable_container_selectors = true
      reload_interval = "1m"
      experimental {
        broker {
          access_policy = "enforced"
          brokers = [{ id = "spiffe://a/ztunnel" pod_reference_scope = "agent_node" }]
        }
      }
    }
  }
}
`,
  );
  assert.deepEqual(config.workloadAttestors, {
    unix: { workloadSizeLimit: -1 },
    systemd: {},
    docker: { socket: "/d.sock", apiVersion: "1.44" },
    k8s: {
      kubeletSecurePort: 10_251,
      skipKubeletVerification: true,
      tokenFile: "/token",
      nodeNameEnv: "NODE",
      maxPollAttempts: 5,
      pollRetryInterval: 1_000,
      disableContainerSelectors: true,
      broker: {
        accessPolicy: "enforced",
        brokers: [{ id: "spiffe://a/ztunnel", podReferenceScope: "agent-node" }],
      },
    },
  });
  assert.deepEqual(
    findings.map(({ severity, message }) => `${severity}: ${message.slice(0, 31)}`),
    ["info: containers of rootless Podman g"],
  );
});

test("what the server is trusted by at first", (t) => {
  const least = LEAST.replace(/ trust_bundle_path.*\n/, "");
  assert.deepEqual(read(t, `agent {\n ${least} insecure_bootstrap = true }`).config.trustBundle, { kind: "server" });
  const url = 'trust_bundle_url = "https://example.org/bundle" trust_bundle_format = "spiffe"';
  const source = { kind: "url", url: "https://example.org/bundle", socket: null };
  assert.deepEqual(read(t, `agent {\n ${least} ${url} }`).config.trustBundle, source);
  const plain = 'trust_bundle_url = "http://local/bundle" trust_bundle_unix_socket = "/run/b.sock"';
  const local = { kind: "url", url: "http://local/bundle", socket: "/run/b.sock" };
  assert.deepEqual(read(t, `agent {\n ${least} ${plain} }`).config.trustBundle, local);
  assert.match(
    faults(t, `agent {\n ${least} trust_bundle_url = "http://example.org/b" }`)[0]?.message ?? "",
    /not https/,
  );
  assert.match(faults(t, `agent {\n ${least} }`)[0]?.hint ?? "", /insecureBootstrap/);
  assert.match(faults(t, `agent {\n ${LEAST} insecure_bootstrap = true }`)[0]?.message ?? "", /more than one/);
});

test("what SPIRE has where nothing is said", (t) => {
  const { config } = read(t, `agent {\n ${LEAST} }`);
  assert.equal(config.socket, "/tmp/spire-agent/public/api.sock");
  assert.equal(config.dataDir, process.cwd());
  assert.equal(config.brokerSocket, join(process.cwd(), "broker.sock"));
  assert.equal(config.health, null);
});

test("what is not understood is refused, with the line and what was meant", (t) => {
  const table: [text: string, line: number, path: string, hint: RegExp][] = [
    [`agent {\n ${LEAST} sever_address = "x" }`, 6, "agent.sever_address", /`server_address`/],
    [`agent {\n ${LEAST} }\nplugins { NodeAttestor "tpm_devid" {} }`, 7, "plugins.NodeAttestor.tpm_devid", /x509pop/],
    [`agent {\n ${LEAST} }\nplugins { WorkloadAttestor "unicks" {} }`, 7, "plugins.WorkloadAttestor.unicks", /./],
    ["agent {}", 1, "agent", /^$/],
    ["telemetry {}", 1, "", /operate/],
  ];
  for (const [text, line, path, hint] of table) {
    const [issue] = faults(t, text);
    assert.deepEqual([issue?.line, issue?.path], [line, path], text);
    assert.match(issue?.hint ?? "", hint, text);
  }
});
