import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { credentials } from "@grpc/grpc-js";
import { FakeClock } from "../../src/core/base/clock.ts";
import { EveryhopError } from "../../src/core/base/errors.ts";
import { certificatesFromPem } from "../../src/core/x509/pem.ts";
import { Admin } from "../../src/gen/everyhop/admin/admin_pb.js";
import { Agent } from "../../src/gen/spire/api/server/agent/v1/agent_pb.js";
import { localSigner } from "../../src/identity/authority/fixture.ts";
import type { Setup } from "../../src/identity/intent/intent.ts";
import { listenHttp } from "../../src/io/http.ts";
import { silentLog } from "../../src/io/log.ts";
import { makeClient } from "../../src/io/rpc/adapter.ts";
import { healthRoutes } from "../../src/run/health.ts";
import { type ServerReady, startServer } from "../../src/run/server.ts";
import { type HealthConfig, readServerConfig, type ServerConfig } from "../../src/run/server-config.ts";

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-run-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

function writeConfig(dir: string, more = ""): string {
  const file = join(dir, "server.yaml");
  const addresses = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
  writeFileSync(file, `trustDomain: example.com\ndataDir: data\nlogLevel: error\n${addresses}${more}`);
  return file;
}

const configIn = (dir: string, more?: string): ServerConfig => readServerConfig(writeConfig(dir, more));

const failsWith = (code: string) => (error: unknown) => error instanceof EveryhopError && error.code === code;

test("a server starts, says where, answers, and ends without a trace; the next has the same authority", async (t) => {
  const dir = folder(t);
  const config = configIn(dir);
  const server = await startServer(config, { log: silentLog });
  const { ready } = server;
  assert.equal(ready.trustBundle, join(dir, "data/bundle.pem"));
  assert.equal(statSync(join(dir, "data")).mode & 0o777, 0o700);
  for (const path of ["healthz", "readyz"]) {
    assert.equal((await fetch(`http://${ready.http}/${path}`)).status, 200);
  }
  assert.match(await (await fetch(`http://${ready.http}/metrics`)).text(), /everyhop_server_entries 0/);
  assert.equal((await fetch(`http://${ready.http}/other`)).status, 404);
  const admin = makeClient(Admin, `unix:${ready.adminSocket}`, credentials.createInsecure());
  t.after(() => admin.close());
  assert.ok((await admin.status({})).fields !== undefined, "the control plane's part of the admin service");
  await assert.rejects(admin.why({ id: "none" }), { code: 5 });
  const bundle = readFileSync(ready.trustBundle, "utf8");
  await server.close();
  assert.equal(existsSync(ready.adminSocket), false);
  await assert.rejects(fetch(`http://${ready.http}/healthz`));
  const again = await startServer(config, { log: silentLog });
  assert.equal(readFileSync(again.ready.trustBundle, "utf8"), bundle);
  await again.close();
});

test("the bundle's file follows the authority", async (t) => {
  const clock = new FakeClock(Date.now());
  const openSigner = (setup: Setup) => localSigner(setup, { clock });
  const server = await startServer(configIn(folder(t)), { log: silentLog, clock, openSigner });
  t.after(() => server.close());
  const changed = new Promise<void>((resolve) => void server.identity.authorities.watch(() => resolve()));
  clock.advance(13 * 3_600_000);
  await changed;
  assert.equal(certificatesFromPem(readFileSync(server.ready.trustBundle, "utf8")).length, 2);
});

test("where an address is taken nothing is left: the same folder starts with another", async (t) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  t.after(() => taken.close());
  const address = taken.address();
  const port = typeof address === "object" ? address?.port : 0;
  const dir = folder(t);
  for (const where of ["http", "xds", "listen"] as const) {
    const config = configIn(dir);
    const broken = {
      ...config,
      [where]: where === "http" ? { host: "127.0.0.1", port } : [{ host: "127.0.0.1", port }],
    };
    await assert.rejects(startServer(broken as ServerConfig, { log: silentLog }), failsWith("port-in-use"), where);
    assert.equal(existsSync(config.adminSocket), false);
  }
  await (await startServer(configIn(dir), { log: silentLog })).close();
});

test("several addresses are listened on", async (t) => {
  const config = { ...configIn(folder(t)), listen: [0, 0].map((port) => ({ host: "127.0.0.1", port })) };
  const server = await startServer(config, { log: silentLog });
  t.after(() => server.close());
  assert.equal(new Set(server.ready.addresses.listen).size, 2);
  assert.equal(server.ready.listen, server.ready.addresses.listen[0]);
});

test("a folder that is new, or only a SPIRE server has used, is closed", async (t) => {
  const config = configIn(folder(t));
  mkdirSync(config.dataDir);
  writeFileSync(join(config.dataDir, "datastore.sqlite3"), "SPIRE's");
  chmodSync(config.dataDir, 0o755);
  await (await startServer(config, { log: silentLog })).close();
  assert.equal(statSync(config.dataDir).mode & 0o777, 0o700);
  assert.equal(readFileSync(join(config.dataDir, "datastore.sqlite3"), "utf8"), "SPIRE's");
});

test("health checks answer on their own listener", async (t) => {
  const config = configIn(folder(t), "health: {listen: '127.0.0.1:0', livePath: /alive}\n");
  const { health } = config;
  assert.deepEqual(health, { listen: { host: "127.0.0.1", port: 0 }, livePath: "/alive", readyPath: "/ready" });
  const listener = await listenHttp({ host: "127.0.0.1", port: 0 }, healthRoutes(health as HealthConfig));
  t.after(() => listener.close());
  const ask = async (path: string) => (await fetch(`http://127.0.0.1:${listener.port}${path}`)).status;
  assert.deepEqual([await ask("/alive"), await ask("/ready"), await ask("/live")], [200, 200, 404]);
});

test("a folder that others can reach, a broken database and invalid policies are refused", async (t) => {
  const dir = folder(t);
  const config = configIn(dir);
  mkdirSync(config.dataDir);
  writeFileSync(join(config.dataDir, "of-others"), "");
  chmodSync(config.dataDir, 0o755);
  await assert.rejects(startServer(config, { log: silentLog }), failsWith("permission-denied"));
  chmodSync(config.dataDir, 0o700);
  writeFileSync(join(config.dataDir, "server.db"), "no database ".repeat(1_000));
  await assert.rejects(startServer(config, { log: silentLog }), failsWith("storage-failed"));
  rmSync(join(config.dataDir, "server.db"));
  writeFileSync(join(dir, "p.yaml"), "kind: AuthorizationPolici\n");
  const withPolicy = configIn(dir, "policies: [p.yaml]\n");
  await assert.rejects(startServer(withPolicy, { log: silentLog }), failsWith("config-invalid"));
  await (await startServer(config, { log: silentLog })).close();
});

/** The command, until it says that it is ready. */
async function command(t: TestContext, file: string): Promise<{ child: ChildProcess; ready: ServerReady }> {
  const main = new URL("../../src/cli/main.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [main, "server", "--config", file, "--exit-with-stdin"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout?.once("data", (chunk: Buffer) => resolve(chunk.toString()));
    child.once("exit", (code) => reject(new Error(`exited with ${code}`)));
  });
  return { child, ready: JSON.parse(line) as ServerReady };
}

const exitOf = (child: ChildProcess) =>
  new Promise((resolve) => child.once("exit", (code, signal) => resolve(signal ?? code)));

test("the process ends in order by a signal and with its supervisor; killed, the next start recovers", async (t) => {
  const file = writeConfig(folder(t));
  const first = await command(t, file);
  const gone = exitOf(first.child);
  first.child.stdin?.end();
  assert.equal(await gone, 0);
  assert.equal(existsSync(first.ready.adminSocket), false);
  const second = await command(t, file);
  const agents = makeClient(Agent, `unix:${second.ready.adminSocket}`, credentials.createInsecure());
  await agents.createJoinToken({ ttl: 60, token: "kept" });
  agents.close();
  const killed = exitOf(second.child);
  second.child.kill("SIGKILL");
  assert.equal(await killed, "SIGKILL");
  const third = await command(t, file);
  const after = makeClient(Agent, `unix:${third.ready.adminSocket}`, credentials.createInsecure());
  await assert.rejects(after.createJoinToken({ ttl: 60, token: "kept" }), { code: 6 }, "the token is still there");
  after.close();
  const ended = exitOf(third.child);
  third.child.kill("SIGTERM");
  assert.equal(await ended, 0);
});
