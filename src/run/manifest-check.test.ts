import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { checkServer } from "./server-check.ts";

interface Made {
  readonly kind?: string;
  readonly replicas?: number;
  readonly image?: string;
  readonly claims?: boolean;
  readonly data?: string;
}

function manifest({
  kind = "StatefulSet",
  replicas = 3,
  image = "ghcr.io/spiffe/spire-server:1.11.0",
  claims = true,
  data,
}: Made): string {
  const volumes = claims ? "  volumeClaimTemplates: [{metadata: {name: spire-data}}]\n" : "";
  const config =
    data === undefined
      ? ""
      : `---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: ${JSON.stringify({ "server.conf": data })}\n`;
  return `# spire-server.yaml
apiVersion: apps/v1
kind: ${kind}
metadata: {name: spire-server, namespace: spire}
spec:
  replicas: ${replicas}
  template:
    spec:
      containers:
        - name: spire-server
          image: ${image}
          args: [server, -config, /run/spire/config/server.conf]
${volumes}${config}`;
}

function files(t: TestContext, contents: Readonly<Record<string, string>>): string[] {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-manifest-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return Object.entries(contents).map(([name, text]) => {
    const file = join(dir, name);
    writeFileSync(file, text);
    return file;
  });
}

const sql = (type: string) =>
  `server { trust_domain = "a" data_dir = "/d" }\nplugins { DataStore "sql" { plugin_data { database_type = "${type}" connection_string = "postgres://u@h/d" } } }\n`;

test("replicas that each have a database of their own are said to be unrelated authorities", (t) => {
  const { ok, issues } = checkServer(files(t, { "spire-server.yaml": manifest({}) }), "/");
  assert.equal(ok, true, "a warning: it is legal, and hardly meant");
  const [issue, ...others] = issues;
  assert.deepEqual(
    [issue?.code, issue?.severity, issue?.line, issue?.path],
    ["replicas-unrelated", "warning", 6, "spec.replicas"],
  );
  assert.match(issue?.message ?? "", /3 replicas .* 3 unrelated authorities/);
  assert.match(issue?.hint ?? "", /PostgreSQL/);
  assert.deepEqual(others, []);
});

test("when it is said, and when not", (t) => {
  const table: [string, Readonly<Record<string, string>>, number][] = [
    ["one replica", { "m.yaml": manifest({ replicas: 1 }) }, 0],
    ["another program", { "m.yaml": manifest({ image: "docker.io/library/redis:7" }) }, 0],
    ["our own image", { "m.yaml": manifest({ image: "registry.example/everyhop:1" }) }, 1],
    ["no volume, nothing known", { "m.yaml": manifest({ kind: "Deployment", claims: false }) }, 0],
    ["SQLite by the ConfigMap beside it", { "m.yaml": manifest({ claims: false, data: sql("sqlite3") }) }, 1],
    ["PostgreSQL by the ConfigMap", { "m.yaml": manifest({ data: sql("postgres") }) }, 0],
    ["SQLite by the configuration", { "m.yaml": manifest({ claims: false }), "s.conf": sql("sqlite3") }, 1],
    ["PostgreSQL by the configuration", { "s.conf": sql("postgres"), "m.yaml": manifest({}) }, 0],
    [
      "our own YAML in the ConfigMap",
      { "m.yaml": manifest({ claims: false, data: "trustDomain: a\ndataDir: d\n" }) },
      1,
    ],
  ];
  for (const [what, contents, count] of table) {
    const { issues } = checkServer(files(t, contents), "/");
    assert.equal(issues.filter(({ code }) => code === "replicas-unrelated").length, count, what);
  }
});
