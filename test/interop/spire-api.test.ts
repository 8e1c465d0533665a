/** A node made of SPIRE's own API contracts and go-spiffe joins our server and does all that SPIRE's agent does. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "../../src/io/log.ts";
import { type RunningServer, startServer } from "../../src/run/server.ts";
import { readServerConfig } from "../../src/run/server-config.ts";
import { peer, skipWithout } from "../peers.ts";

async function running(t: TestContext): Promise<RunningServer> {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-interop-"));
  const file = join(dir, "server.yaml");
  const addresses = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
  writeFileSync(file, `trustDomain: example.com\ndataDir: data\n${addresses}`);
  const server = await startServer(readServerConfig(file), { log: silentLog });
  t.after(async () => {
    await server.close();
    rmSync(dir, { recursive: true });
  });
  return server;
}

/** The answers of the client, a JSON line each. */
function client(...args: string[]): Promise<Record<string, unknown>[]> {
  return new Promise((resolve) => {
    const child = spawn(peer("go-spiffe") ?? "", args, { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.on("close", () =>
      resolve(
        text
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line)),
      ),
    );
  });
}

for (const [size, entries] of [
  ["few", 2],
  ["more than a page of", 501],
] as const) {
  test(`a node of SPIRE's contracts with ${size} entries joins, syncs, is signed for, renews and is thrown out`, async (t) => {
    if (skipWithout(t, "go-spiffe")) {
      return;
    }
    const { ready, identity, registry } = await running(t);
    const { value: token } = await identity.nodes.createJoinToken({});
    const agent = `spiffe://example.com/spire/agent/join_token/${token}`;
    for (let index = 0; index < entries; index++) {
      const spiffeId = `spiffe://example.com/w${index}`;
      await registry.createEntry({ spiffeId, parentId: agent, selectors: ["unix:uid:0"], hint: "main" });
    }
    const { listen, trustBundle, adminSocket } = ready;
    const where = ["-server", listen, "-bundle", trustBundle, "-id", "example.com", "-socket", `unix:${adminSocket}`];
    const answers = await client("node", ...where, "-token", token);
    const step = (name: string) => answers.find((answer) => answer.step === name) ?? {};
    const svidOf = (name: string) => (step(name).svid as { spiffeId: string }).spiffeId;
    assert.deepEqual(
      answers.filter(({ error }) => error !== undefined),
      [],
    );
    assert.equal(svidOf("attest"), agent);
    assert.equal(step("attest").reattestable, false);
    assert.deepEqual([step("bundle").trustDomain, step("bundle").x509, step("bundle").jwt], ["example.com", 1, 1]);
    assert.deepEqual([step("sync").entries, step("sync").revisions], [entries, entries > 500 ? entries : 0]);
    assert.match(svidOf("x509"), /^spiffe:\/\/example\.com\/w\d+$/);
    assert.equal(step("x509").unknown, 5, "NotFound for what it is not authorised for");
    assert.deepEqual(step("jwt").audience, ["db"]);
    assert.deepEqual(step("renew").old, { code: "PermissionDenied", reason: "AGENT_NOT_ACTIVE" });
    assert.deepEqual(step("banned").refused, { code: "PermissionDenied", reason: "AGENT_BANNED" });
    assert.deepEqual(step("token again").refused, {
      code: "InvalidArgument",
      message: "failed to attest: join token does not exist or has already been used",
    });
  });
}
