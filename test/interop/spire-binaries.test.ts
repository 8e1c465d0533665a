/** SPIRE's own programs, where SPIRE_AGENT and SPIRE_SERVER name them: the agent attaches to our server, the command line administers it. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "../../src/io/log.ts";
import { type RunningServer, startServer } from "../../src/run/server.ts";
import { readServerConfig } from "../../src/run/server-config.ts";
import { peer, skipWithout } from "../peers.ts";

async function running(t: TestContext): Promise<{ readonly dir: string; readonly server: RunningServer }> {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-spire-"));
  const file = join(dir, "server.yaml");
  const addresses = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
  writeFileSync(file, `trustDomain: example.com\ndataDir: data\n${addresses}`);
  const server = await startServer(readServerConfig(file), { log: silentLog });
  t.after(async () => {
    await server.close();
    rmSync(dir, { recursive: true });
  });
  return { dir, server };
}

function run(program: string, args: readonly string[]) {
  return new Promise<{ readonly code: number; readonly out: string }>((resolve) => {
    execFile(program, args, { timeout: 30_000 }, (error, out, err) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error === null ? 0 : -1, out: out + err });
    });
  });
}

test("spire-agent joins our server and hands out an identity", async (t) => {
  if (skipWithout(t, "spire-agent")) {
    return;
  }
  const { dir, server } = await running(t);
  const program = peer("spire-agent") as string;
  const { value: token } = await server.identity.nodes.createJoinToken({});
  const parentId = `spiffe://example.com/spire/agent/join_token/${token}`;
  const selectors = [`unix:uid:${process.getuid?.()}`];
  await server.registry.createEntry({ spiffeId: "spiffe://example.com/web", parentId, selectors });
  const socket = join(dir, "agent.sock");
  const [host, port] = server.ready.listen.split(":");
  const config = join(dir, "agent.conf");
  writeFileSync(
    config,
    `agent {
  data_dir = "${dir}/agent"
  server_address = "${host}"
  server_port = "${port}"
  socket_path = "${socket}"
  trust_domain = "example.com"
  trust_bundle_path = "${server.ready.trustBundle}"
  join_token = "${token}"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`,
  );
  const agent = spawn(program, ["run", "-config", config], { stdio: ["ignore", "pipe", "pipe"] });
  t.after(() => agent.kill("SIGKILL"));
  await new Promise<void>((resolve, reject) => {
    let said = "";
    const read = (chunk: Buffer): void => {
      said += chunk.toString();
      if (/Starting Workload and SDS APIs/.test(said)) {
        resolve();
      }
    };
    agent.stdout.on("data", read);
    agent.stderr.on("data", read);
    agent.once("exit", () => reject(new Error(`spire-agent ended:\n${said}`)));
  });
  const fetched = await run(program, ["api", "fetch", "x509", "-socketPath", socket, "-write", dir, "-timeout", "20s"]);
  assert.equal(fetched.code, 0, fetched.out);
  assert.match(fetched.out, /spiffe:\/\/example\.com\/web/);
  assert.match(readFileSync(join(dir, "svid.0.pem"), "utf8"), /BEGIN CERTIFICATE/);
  const jwt = await run(program, ["api", "fetch", "jwt", "-socketPath", socket, "-audience", "db", "-timeout", "20s"]);
  assert.equal(jwt.code, 0, jwt.out);
});

test("spire-server's command line administers our server", async (t) => {
  if (skipWithout(t, "spire-server")) {
    return;
  }
  const { server } = await running(t);
  const cli = async (...args: string[]) => {
    const { code, out } = await run(peer("spire-server") as string, [...args, "-socketPath", server.ready.adminSocket]);
    assert.equal(code, 0, `${args.join(" ")}:\n${out}`);
    return out;
  };
  await cli("healthcheck");
  assert.match(await cli("token", "generate", "-spiffeID", "spiffe://example.com/node"), /Token: \S+/);
  const parent = ["-parentID", "spiffe://example.com/node"];
  const created = await cli(
    "entry",
    "create",
    "-spiffeID",
    "spiffe://example.com/web",
    ...parent,
    "-selector",
    "unix:uid:1",
  );
  const id = /Entry ID\s+: (\S+)/.exec(created)?.[1] ?? "";
  assert.match(await cli("entry", "show", "-selector", "unix:uid:1"), new RegExp(id));
  assert.match(await cli("entry", "count"), /2 registration entries/);
  const fields = ["-spiffeID", "spiffe://example.com/web", ...parent, "-selector", "unix:uid:2"];
  assert.match(await cli("entry", "update", "-entryID", id, ...fields), /Revision\s+: 1/);
  assert.match(await cli("entry", "delete", "-entryID", id), new RegExp(`Deleted entry with ID: ${id}`));
  assert.match(await cli("bundle", "show"), /BEGIN CERTIFICATE/);
  assert.match(await cli("agent", "list"), /No attested agents found|Found 0 attested agents/);
  assert.match(await cli("x509", "mint", "-spiffeID", "spiffe://example.com/by-hand"), /BEGIN CERTIFICATE/);
  assert.match(
    await cli("jwt", "mint", "-spiffeID", "spiffe://example.com/by-hand", "-audience", "a"),
    /^\S+\.\S+\.\S+/m,
  );
});
