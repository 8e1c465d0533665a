import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { EveryhopError, type Issue } from "../../core/base/errors.ts";
import { readServerFile, type ServerFile } from "../server-config.ts";

/** SPIRE's file of a published guide: its `plugins` stand inside of `server`. */
const GUIDE = `server {
  bind_address = "0.0.0.0"
  bind_port = "8081"
  trust_domain = "example.com"
  data_dir = "/run/spire/data"
  log_level = "INFO"
  ca_ttl = "24h"
  default_x509_svid_ttl = "1h"
  plugins {
    DataStore "sql" {
      plugin_data {
        database_type = "sqlite3"
        connection_string = "/run/spire/data/datastore.sqlite3"
      }
    }
    NodeAttestor "k8s_psat" {
      plugin_data {
        clusters = { "production" = { service_account_allow_list = ["spire:spire-agent"] } }
      }
    }
    KeyManager "disk" { plugin_data { keys_path = "/run/spire/data/keys.json" } }
  }
}
`;

function read(t: TestContext, text: string, name = "spire-server.conf", options = {}): ServerFile {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-spire-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, name);
  writeFileSync(file, text);
  return readServerFile(file, options);
}

function faults(t: TestContext, text: string, name?: string): readonly Issue[] {
  try {
    read(t, text, name);
  } catch (error) {
    assert.ok(error instanceof EveryhopError && error.code === "config-invalid", String(error));
    return error.issues;
  }
  return [];
}

const LEAST = 'trust_domain = "a"\n data_dir = "/d"\n';

test("the guide's file is taken as it is; where SPIRE would refuse it, it says so with the line", (t) => {
  const { config, findings } = read(t, GUIDE);
  assert.equal(config.trustDomain, "example.com");
  assert.deepEqual(config.listen, [{ host: "0.0.0.0", port: 8081 }]);
  assert.equal(config.dataDir, "/run/spire/data");
  assert.deepEqual(config.ca, { caTtlMs: 86_400_000, x509SvidTtlMs: 3_600_000 });
  assert.equal(config.adminSocket, "/tmp/spire-server/private/api.sock");
  assert.deepEqual(config.nodeAttestors.k8s_psat?.clusters, { production: { serviceAccounts: ["spire:spire-agent"] } });
  const [misplaced] = findings.filter(({ severity }) => severity === "warning");
  assert.deepEqual([misplaced?.line, misplaced?.path], [9, "server.plugins"]);
  assert.match(misplaced?.message ?? "", /inside of `server`/);
  assert.match(misplaced?.hint ?? "", /move the block/);
  assert.equal(findings.filter(({ severity }) => severity === "warning").length, 1);
});

test("every block of a file that SPIRE takes", (t) => {
  const { config, findings } = read(
    t,
    `server {
  trust_domain = "example.org"
  data_dir = "./data"
  bind_address = "::1"
  bind_port = 9081
  socket_path = "/run/spire/api.sock"
  admin_ids = ["spiffe://example.org/admin"]
  agent_ttl = "30m"
  ca_ttl = "48h"
  default_x509_svid_ttl = "2h"
  default_jwt_svid_ttl = "90s"
  jwt_issuer = "https://issuer.example.org"
  ca_key_type = "ec-p256"
  log_level = "warning"
  log_format = "json"
  ratelimit { attestation = false signing = "true" }
  prune_attested_nodes_expired_for = "72h"
  prune_tofu_nodes = true
  experimental { events_based_cache = true }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" } }
  KeyManager "memory" { enabled = false }
  NodeAttestor "join_token" { plugin_data {} }
  NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "/ca.pem" } }
  NodeAttestor "aws_iid" { plugin_data { account_ids = ["1"] } }
  Notifier "k8sbundle" { plugin_data {} }
}
telemetry { Prometheus { port = 9988 } }
health_checks { listener_enabled = true bind_port = "8090" live_path = "/l" }
everyhop { policies = [] xds = "127.0.0.1:15011" }
`,
  );
  assert.equal(config.dataDir, join(process.cwd(), "data"), "as in SPIRE: relative to the current folder");
  assert.deepEqual(config.listen, [{ host: "::1", port: 9081 }]);
  assert.deepEqual(config.adminIds, ["spiffe://example.org/admin"]);
  assert.deepEqual(config.rateLimit, { attestation: false, signing: true });
  assert.deepEqual(config.pruneAgents, { expiredForMs: 259_200_000, nonReattestable: true });
  assert.deepEqual(config.http, { host: "localhost", port: 9988 });
  assert.deepEqual(config.xds, [{ host: "127.0.0.1", port: 15_011 }]);
  const health = { listen: { host: "localhost", port: 8090 }, livePath: "/l", readyPath: "/ready" };
  assert.deepEqual(config.health, health);
  assert.deepEqual(config.nodeAttestors, { x509pop: { caBundleFiles: ["/ca.pem"] } });
  assert.equal(config.ca.jwtIssuer, "https://issuer.example.org");
  assert.equal(config.ca.agentTtlMs, 1_800_000);
  assert.equal(config.logLevel, "warn");
  assert.deepEqual(
    findings.filter(({ severity }) => severity === "warning").map(({ line, path }) => `${line} ${path}`),
    ["19 server.experimental.events_based_cache", "26 plugins.NodeAttestor.aws_iid", "27 plugins.Notifier.k8sbundle"],
  );
});

test('DataStore "sql" on postgres, in both forms of the connection string, with SPIRE\'s files of certificates', (t) => {
  const dataStore = (connection: string, more = "") => {
    const data = `database_type = "postgres" connection_string = "${connection}" ${more}`;
    const file = `server {\n ${LEAST} }\nplugins { DataStore "sql" { plugin_data { ${data} } } }`;
    return read(t, file).config.dataStore;
  };
  const keywords = "dbname=spire user=spire host=db sslmode=verify-full";
  assert.deepEqual(dataStore(keywords), { kind: "postgres", connection: keywords, passwordFile: null });
  const files = `root_ca_path = "/a b/ca.pem" client_cert_path = "/c.pem" client_key_path = "/k.pem"`;
  const connectionOf = (connection: string) => (dataStore(connection, files) as { connection: string }).connection;
  assert.equal(
    connectionOf("dbname=d host=h"),
    "dbname=d host=h sslrootcert='/a b/ca.pem' sslcert='/c.pem' sslkey='/k.pem'",
  );
  assert.equal(
    connectionOf("postgresql://u@h/d?sslmode=verify-full"),
    "postgresql://u@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b%2Fca.pem&sslcert=%2Fc.pem&sslkey=%2Fk.pem",
  );
});

test("HCL's JSON form, as charts write it, with lists of blocks", (t) => {
  const { config } = read(
    t,
    JSON.stringify({
      server: { trust_domain: "a", data_dir: "/d", bind_port: "8081" },
      plugins: {
        DataStore: [{ sql: { plugin_data: { database_type: "sqlite3", connection_string: "/d/x" } } }],
        NodeAttestor: [{ k8s_psat: { plugin_data: { clusters: [{ one: { service_account_allow_list: ["n:a"] } }] } } }],
      },
      telemetry: { Prometheus: [{ host: "0.0.0.0", port: 9988 }] },
    }),
    "server.json",
  );
  assert.deepEqual(config.http, { host: "0.0.0.0", port: 9988 });
  assert.deepEqual(Object.keys(config.nodeAttestors.k8s_psat?.clusters ?? {}), ["one"]);
});

test("what is not understood is refused, with the line and what was meant", (t) => {
  const table: [text: string, line: number, path: string, hint: RegExp][] = [
    [`server {\n ${LEAST} trust_domian = "a" }`, 4, "server.trust_domian", /`trust_domain`/],
    [`server {\n ${LEAST} }\n plugin {}`, 5, "plugin", /`plugins`/],
    [`server {\n ${LEAST} bind_port = "x" }`, 4, "server.bind_port", /^$/],
    [`server {\n ${LEAST} log_level = "loud" }`, 4, "server.log_level", /DEBUG/],
    [`server {\n ${LEAST} ca_ttl = "soon" }`, 4, "server.ca_ttl", /1h30m/],
    [`server {\n ${LEAST} admin_ids = ["x"] }`, 4, "server.admin_ids[0]", /^$/],
    [`server {\n ${LEAST} }\nplugins { NodeAttestor "x509pob" {} }`, 5, "plugins.NodeAttestor.x509pob", /`x509pop`/],
    [`server {\n ${LEAST} }\nplugins { NodeAttester "x" {} }`, 5, "plugins.NodeAttester", /`NodeAttestor`/],
    [`server {\n ${LEAST} }\nplugins { KeyManager "aws_kms" {} }`, 5, "plugins.KeyManager.aws_kms", /pkcs11/],
    [
      `server {\n ${LEAST} }\nplugins { KeyManager "disk" { plugin_cmd = "/x" } }`,
      5,
      "plugins.KeyManager.disk.plugin_cmd",
      /disk/,
    ],
    [
      `server {\n ${LEAST} }\nplugins { DataStore "sql" { plugin_data { database_type = "mysql" } } }`,
      5,
      "plugins.DataStore.sql.plugin_data.database_type",
      /postgres/,
    ],
    ['server {\n data_dir = "/d" }', 1, "server", /^$/],
  ];
  for (const [text, line, path, hint] of table) {
    const [issue] = faults(t, text);
    assert.deepEqual([issue?.line, issue?.path], [line, path], text);
    assert.match(issue?.hint ?? "", hint, text);
  }
});

test("HCL is known by its blocks where the name does not say it, and YAML stays YAML", (t) => {
  assert.equal(read(t, `# a comment\nserver {\n ${LEAST} }`, "config").config.trustDomain, "a");
  assert.equal(read(t, "trustDomain: b\ndataDir: d\n", "server.yaml").config.trustDomain, "b");
});

test("the environment is read where that is asked for, and only there", (t) => {
  process.env.EVERYHOP_TEST_DOMAIN = "from.env";
  t.after(() => delete process.env.EVERYHOP_TEST_DOMAIN);
  const text = `server { trust_domain = "\${EVERYHOP_TEST_DOMAIN}" data_dir = "/d$NOT_SET" }`;
  const { config } = read(t, text, "s.conf", { expandEnv: true });
  assert.deepEqual([config.trustDomain, config.dataDir], ["from.env", "/d"]);
  assert.match(faults(t, text)[0]?.message ?? "", /EVERYHOP_TEST_DOMAIN/);
});
