/** Server and agent as processes, a workload's SVIDs of four seconds: joining, rotating, restarting, being away, being thrown out. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

const MAIN = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
const dir = mkdtempSync(join(tmpdir(), "everyhop-"));
const at = (name: string): string => join(dir, name);
const UID = `unix:uid:${process.getuid?.()}`;
const children = new Set<ChildProcess>();

interface Running {
  readonly child: ChildProcess;
  /** The JSON lines of its standard output. */
  readonly lines: Record<string, string>[];
  errors(): string;
  line(index: number): Promise<Record<string, string>>;
  exit(): Promise<number | null>;
}

function start(...args: readonly string[]): Running {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["pipe", "pipe", "pipe"], cwd: dir });
  children.add(child);
  const lines: Record<string, string>[] = [];
  let text = "";
  let errors = "";
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk;
    const whole = text.split("\n");
    text = whole.pop() ?? "";
    lines.push(...whole.map((one) => JSON.parse(one)));
  });
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk;
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return {
    child,
    lines,
    errors: () => errors,
    async line(index) {
      await until(
        () => lines.length > index || child.exitCode !== null,
        `line ${index} of ${args.join(" ")}\n${errors}`,
      );
      return lines[index] ?? {};
    },
    exit: () => exited,
  };
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const giveUpAt = Date.now() + 30_000;
  while (!condition()) {
    assert.ok(Date.now() < giveUpAt, `in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs a command to its end; its JSON and exit code. */
function cli<T = Record<string, string>>(...args: readonly string[]): Promise<{ code: number; json: T }> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [MAIN, ...args, "--json"], { cwd: dir }, (error, stdout, stderr) => {
      try {
        resolve({
          code: error === null ? 0 : Number(error.code),
          json: JSON.parse(stdout.trim().split("\n").at(-1) ?? ""),
        });
      } catch {
        reject(new Error(`${args.join(" ")}: ${stdout}${stderr}`));
      }
    });
  });
}

const onServer = (...args: readonly string[]) => cli(...args, "--admin-socket", at("admin.sock"));
const fetchSvid = () =>
  cli<{ svids: Record<string, string>[]; error: Record<string, string> }>(
    "svid",
    "fetch",
    "--socket",
    at("agent.sock"),
  );
const startServer = () => start("server", "--config", at("server.yaml"), "--exit-with-stdin");
const startAgent = () => start("agent", "--config", at("agent.yaml"), "--exit-with-stdin");

let server: Running;
let agent: Running;
let agentId: string;

async function register(path: string, ttl: string, ...selectors: readonly string[]): Promise<string> {
  const { code, json } = await onServer(
    ...["entry", "create", "--spiffe-id", `spiffe://example.com${path}`, "--parent-id", agentId],
    ...["--x509-svid-ttl", ttl],
    ...selectors.flatMap((selector) => ["--selector", selector]),
  );
  assert.equal(code, 0, JSON.stringify(json));
  return json.id ?? "";
}

before(async () => {
  // Ports are taken by the server and then kept, so that it can come back on the same ones.
  const config = (listen: string, http: string, xds: string) => `
trustDomain: example.com
dataDir: ${at("server")}
listen: ${listen}
http: ${http}
xds: ${xds}
adminSocket: ${at("admin.sock")}
policies: []
ca: {x509SvidTtl: 1m}
`;
  writeFileSync(at("server.yaml"), config("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"));
  server = startServer();
  const { listen = "", http = "", xds = "", trustBundle } = await server.line(0);
  assert.ok(trustBundle, server.errors());
  writeFileSync(at("server.yaml"), config(listen, http, xds));
  const { json } = await onServer("token", "generate");
  writeFileSync(at("token"), json.token ?? "");
  agentId = `spiffe://example.com/spire/agent/join_token/${json.token}`;
  writeFileSync(
    at("agent.yaml"),
    `
trustDomain: example.com
server: ${listen}
dataDir: agent
joinTokenFile: token
trustBundle: ${trustBundle}
socket: agent.sock
brokerSocket: broker.sock
metrics: 127.0.0.1:0
`,
  );
  agent = startAgent();
  assert.equal((await agent.line(0)).spiffeId, agentId, agent.errors());
});

after(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
  }
  rmSync(dir, { recursive: true, force: true });
});

test("without an entry there is no identity, exit code 1, and the reason", async () => {
  const { code, json } = await fetchSvid();
  assert.equal(code, 1);
  assert.match(json.error.message ?? "", /no identity issued/);
  assert.match(json.error.hint ?? "", /entry explain/);
});

test("with one there is, in files of the right rights", async () => {
  await register("/ns/shop/sa/web", "1m", UID);
  const { code, json } = await cli<{ svids: Record<string, string>[] }>(
    ...["svid", "fetch", "--socket", `unix://${at("agent.sock")}`, "--out-dir", at("out")],
  );
  assert.deepEqual([code, json.svids[0]?.spiffeId], [0, "spiffe://example.com/ns/shop/sa/web"]);
  assert.equal(statSync(at("out/svid.0.key")).mode & 0o777, 0o600);
  assert.match(readFileSync(at("out/svid.0.pem"), "utf8"), /^-----BEGIN CERTIFICATE-----/);
  assert.match(readFileSync(at("out/bundle.0.pem"), "utf8"), /^-----BEGIN CERTIFICATE-----/);
});

test("an entry is explained to who asks why it does not match", async () => {
  const missing = await register("/ns/shop/sa/api", "1m", UID, "unix:path:/not/this");
  const { json } = await cli<{
    matched: string[];
    identities: string[];
    nearMisses: { entryId: string; missing: string[] }[];
  }>(
    ...["entry", "explain", "--pid", String(process.pid), "--agent-admin-socket", at("agent/admin.sock")],
    ...["--admin-socket", at("admin.sock")],
  );
  assert.deepEqual(json.identities, ["spiffe://example.com/ns/shop/sa/web"]);
  assert.deepEqual(
    json.nearMisses.map(({ entryId, missing: lacks }) => [entryId, lacks]),
    [[missing, ["unix:path:/not/this"]]],
  );
});

test("SVIDs of four seconds follow one another, through a restart of the agent and a time without the server", async () => {
  const id = "spiffe://example.com/ns/shop/sa/short";
  await register("/ns/shop/sa/short", "4s", UID);
  const watching = start("svid", "watch", "--socket", at("agent.sock"), "--json");
  const seen = () => [
    ...new Set(watching.lines.filter(({ spiffeId }) => spiffeId === id).map(({ notAfter }) => notAfter)),
  ];
  await until(() => seen().length > 2, "rotation");
  agent.child.kill("SIGKILL");
  await agent.exit();
  agent = startAgent();
  assert.equal((await agent.line(0)).spiffeId, agentId, agent.errors());
  const before = seen().length;
  await until(() => seen().length > before + 1, `rotation after the agent's restart\n${watching.errors()}`);
  server.child.kill("SIGKILL");
  await server.exit();
  assert.equal((await fetchSvid()).code, 0, "the cache serves");
  server = startServer();
  await server.line(0);
  const away = seen().length;
  await until(() => seen().length > away + 1, `rotation after the server's return\n${agent.errors()}`);
  const expiries = seen().map((notAfter = "") => Date.parse(notAfter));
  assert.deepEqual(
    expiries,
    expiries.toSorted((a, b) => a - b),
    "each lasts longer than the one before",
  );
  watching.child.kill("SIGTERM");
  assert.equal(await watching.exit(), 0);
});

test("an agent that is banned ends with exit code 3 and says so", async () => {
  const { code } = await onServer("agent", "ban", "--spiffe-id", agentId);
  assert.equal(code, 0);
  assert.equal(await agent.exit(), 3);
  assert.match(agent.errors(), /banned/);
});

test("a server ends when its supervisor does", async () => {
  server.child.stdin?.end();
  assert.equal(await server.exit(), 0);
});
