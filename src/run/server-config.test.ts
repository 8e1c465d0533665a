import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { EveryhopError, type Issue } from "../core/base/errors.ts";
import { readServerConfig } from "./server-config.ts";

function configFile(t: TestContext, text: string): { file: string; dir: string } {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-config-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, "server.yaml");
  writeFileSync(file, text);
  return { file, dir };
}

function issuesOf(t: TestContext, text: string): readonly Issue[] {
  try {
    readServerConfig(configFile(t, text).file);
  } catch (error) {
    assert.ok(error instanceof EveryhopError && error.code === "config-invalid");
    return error.issues;
  }
  return [];
}

test("little has to be said; paths are relative to the file", (t) => {
  const { file, dir } = configFile(t, "trustDomain: example.com\ndataDir: data\n");
  assert.deepEqual(readServerConfig(file), {
    trustDomain: "example.com",
    dataDir: join(dir, "data"),
    dataStore: { kind: "sqlite" },
    listen: [{ host: "127.0.0.1", port: 8081 }],
    adminSocket: join(dir, "data/admin.sock"),
    http: { host: "127.0.0.1", port: 8080 },
    xds: [{ host: "127.0.0.1", port: 15010 }],
    policies: [],
    meshConfig: {},
    ca: {},
    keys: { kind: "disk", dir: join(dir, "data/keys") },
    ceilings: {
      maxX509SvidTtlMs: 86_400_000,
      maxJwtSvidTtlMs: 86_400_000,
      maxCaTtlMs: 86_400_000,
      maxPerSecond: 10_000,
      downstream: true,
    },
    adminIds: [],
    rateLimit: { attestation: true, signing: true },
    health: null,
    nodeAttestors: {},
    pruneAgents: null,
    federation: null,
    upstream: null,
    services: [],
    roles: [],
    logLevel: "info",
  });
});

test("everything that can be said", (t) => {
  const { file, dir } = configFile(
    t,
    `
trustDomain: example.com
dataDir: /srv/data
listen: ["127.0.0.1:1", "[::1]:2"]
adminSocket: a.sock
http: localhost:3
xds: 10.0.0.1:4
policies: [policies]
meshConfig: {rootNamespace: mesh, pathNormalization: {normalization: BASE}}
ca: {x509SvidTtl: 10m, jwtSvidTtl: 90s, caTtl: 2h, keyType: ec-p384, jwtKeyType: rsa-2048}
keyManager: {kind: disk, dir: ca-keys}
signer: {maxX509SvidTtl: 20m, maxJwtSvidTtl: 5m, maxPerSecond: 50, downstream: false}
services:
  web: {namespace: shop, port: 80, endpoints: ["127.0.0.1:41002", "[::1]:41002"]}
  db: {namespace: data, serviceAccount: postgres, labels: {app: db}, port: 5432, protocol: tcp, endpoints: []}
logLevel: debug
`,
  );
  mkdirSync(join(dir, "policies"));
  const config = readServerConfig(file);
  assert.deepEqual(config.listen, [
    { host: "127.0.0.1", port: 1 },
    { host: "::1", port: 2 },
  ]);
  assert.equal(config.adminSocket, join(dir, "a.sock"));
  assert.deepEqual(config.meshConfig, { rootNamespace: "mesh", pathNormalization: { normalization: "BASE" } });
  assert.deepEqual(config.policies, [join(dir, "policies")]);
  const types = { caKeyType: "ec-p384", jwtKeyType: "rsa-2048" };
  assert.deepEqual(config.ca, { x509SvidTtlMs: 600_000, jwtSvidTtlMs: 90_000, caTtlMs: 7_200_000, ...types });
  assert.deepEqual(config.keys, { kind: "disk", dir: join(dir, "ca-keys") });
  assert.deepEqual(config.ceilings, {
    maxX509SvidTtlMs: 1_200_000,
    maxJwtSvidTtlMs: 300_000,
    maxCaTtlMs: 7_200_000,
    maxPerSecond: 50,
    downstream: false,
  });
  assert.deepEqual(config.services, [
    {
      name: "web",
      namespace: "shop",
      serviceAccount: "web",
      labels: {},
      port: 80,
      protocol: "http",
      endpoints: ["127.0.0.1:41002", "[::1]:41002"],
    },
    {
      name: "db",
      namespace: "data",
      serviceAccount: "postgres",
      labels: { app: "db" },
      port: 5432,
      protocol: "tcp",
      endpoints: [],
    },
  ]);
});

test("a database on PostgreSQL; its faults are said without what is secret in it", (t) => {
  const text = (block: string) => `trustDomain: example.com\ndataDir: data\ndataStore: ${block}\n`;
  const { file, dir } = configFile(t, text("{kind: postgres, connection: 'postgres://u@h/d', passwordFile: pw}"));
  const expected = { kind: "postgres", connection: "postgres://u@h/d", passwordFile: join(dir, "pw") };
  assert.deepEqual(readServerConfig(file).dataStore, expected);
  const table: readonly (readonly [string, RegExp])[] = [
    ["{kind: postgres}", /`connection` is missing/],
    ["{kind: mysql}", /expected one of sqlite, postgres/],
    ["{kind: sqlite, connection: 'postgres://u:geheim@h/d'}", /is for `kind: postgres`/],
    ["{kind: postgres, connection: 'postgres://u:geheim@h/d?sslmod=x'}", /`sslmod`.*not known/],
    ["{kind: postgres, connection: 'host=h password=geheim sslmode=maybe'}", /`sslmode`/],
  ];
  for (const [block, message] of table) {
    const issues = issuesOf(t, text(block));
    assert.equal(issues.length, 1, block);
    assert.match(issues[0]?.message ?? "", message);
    assert.equal(issues[0]?.line, 3);
    assert.ok(!JSON.stringify(issues).includes("geheim"));
  }
});

test("every fault is said, with its place and what was meant", (t) => {
  const issues = issuesOf(
    t,
    `trustDomain: Example.com
dataDir: 5
lisen: 127.0.0.1:8081
http: 127.0.0.1
xds: []
ca: {caTtl: soon}
meshConfig: {rootNamspace: x}
services:
  web: {namespace: shop, prot: http, port: 0, endpoints: [nowhere]}
`,
  );
  assert.deepEqual(
    issues.map(({ line, path }) => `${line} ${path}`),
    [
      "1 trustDomain",
      "2 dataDir",
      "3 lisen",
      "4 http",
      "5 xds",
      "6 ca.caTtl",
      "7 meshConfig.rootNamspace",
      "9 services.web.prot",
      "9 services.web.port",
      "9 services.web.endpoints[0]",
    ],
  );
  assert.equal(issues.find(({ path }) => path === "lisen")?.hint, "did you mean `listen`?");
});

test("a policy path that is not there, a socket path that is too long, lifetimes that make no sense", (t) => {
  const [policies] = issuesOf(t, "trustDomain: a\ndataDir: d\npolicies: [x, none]\n");
  assert.match(policies?.message ?? "", /does not exist/);
  const [socket] = issuesOf(t, `trustDomain: a\ndataDir: d\nadminSocket: ${"x".repeat(120)}\n`);
  assert.equal(socket?.line, 3);
  const [ca] = issuesOf(t, "trustDomain: a\ndataDir: d\nca: {caTtl: 1h, x509SvidTtl: 1h}\n");
  assert.equal(ca?.path, "ca");
});

test("an empty file, two documents, and no file", (t) => {
  assert.match(issuesOf(t, "")[0]?.message ?? "", /empty/);
  assert.match(issuesOf(t, "trustDomain: a\ndataDir: d\n---\na: 1\n")[0]?.message ?? "", /one document/);
  assert.throws(
    () => readServerConfig("/nowhere/server.yaml"),
    (error: unknown) => error instanceof EveryhopError && error.code === "file-missing",
  );
});
