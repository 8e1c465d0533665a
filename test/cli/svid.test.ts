import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { RunningAgent } from "../../src/identity/agent/agent.ts";
import { startTestAgent, testFolder, until } from "../../src/identity/agent/fixture.ts";
import { FakeServer } from "../../src/identity/agent/server-fixture.ts";
import { systemClock } from "../../src/io/clock.ts";

const MAIN = new URL("../../src/cli/main.ts", import.meta.url).pathname;
const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";

const server = new FakeServer(systemClock);
const folder = testFolder();
let agent: RunningAgent;

before(async () => {
  await server.listen();
  server.setEntries(
    { id: "a", spiffeId: WEB, selectors: [UID], createdAt: 1, hint: "main" },
    { id: "b", spiffeId: API, selectors: [UID], createdAt: 2 },
  );
  agent = await startTestAgent(server, folder.dir);
  await until(() => agent.cache.svidCount === 2, "the SVIDs");
});
after(async () => {
  await agent.close();
  await server.close();
  folder.remove();
});

async function svid(...args: string[]) {
  const all = [MAIN, "svid", ...args, "--socket", agent.socket];
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    execFile(process.execPath, all, (error, out, err) => {
      resolve({ code: typeof error?.code === "number" ? error.code : 0, out, err });
    });
  });
}

test("JWT-SVIDs: fetched for an audience, written, validated for it and for no other", async () => {
  const dir = join(folder.dir, "out");
  const fetched = await svid("fetch", "--type", "jwt", "--audience", "shop", "--out-dir", dir, "--json");
  const { svids, files } = JSON.parse(fetched.out);
  assert.deepEqual(
    svids.map((one: { spiffeId: string; hint?: string }) => [one.spiffeId, one.hint]),
    [
      [WEB, "main"],
      [API, undefined],
    ],
  );
  assert.ok(Date.parse(svids[0].expiresAt) > Date.now());
  assert.deepEqual(files, [join(dir, "svid.0.jwt"), join(dir, "svid.1.jwt")]);
  assert.equal(readFileSync(join(dir, "svid.0.jwt"), "utf8").trim(), svids[0].token);
  const [valid, other] = await Promise.all([
    svid("validate", "--audience", "shop", "--token", svids[0].token, "--json"),
    svid("validate", "--audience", "bank", "--token", svids[0].token, "--json"),
  ]);
  const { valid: is, spiffeId, claims } = JSON.parse(valid.out);
  assert.deepEqual([valid.code, is, spiffeId, claims.aud], [0, true, WEB, ["shop"]]);
  assert.equal(other.code, 1);
  assert.deepEqual(JSON.parse(other.out), { valid: false, reason: "the token is for another audience" });
});

test("a JWT-SVID needs an audience; an identity of somebody else is none", async () => {
  const [none, foreign] = await Promise.all([
    svid("fetch", "--type", "jwt"),
    svid("fetch", "--type", "jwt", "--audience", "shop", "--spiffe-id", "spiffe://example.com/other", "--json"),
  ]);
  assert.equal(none.code, 2);
  assert.match(none.err, /a JWT-SVID is for an audience[\s\S]*--audience/);
  assert.deepEqual([foreign.code, JSON.parse(foreign.out).error.code], [1, "permission-denied"]);
});

test("watched, tokens come a line each", async (t) => {
  const child = spawn(
    process.execPath,
    [
      MAIN,
      "svid",
      "watch",
      "--type",
      "jwt",
      "--audience",
      "shop",
      "--spiffe-id",
      API,
      "--json",
      "--socket",
      agent.socket,
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  t.after(() => child.kill("SIGKILL"));
  const line = await new Promise<string>((resolve) => child.stdout.once("data", (chunk) => resolve(String(chunk))));
  assert.equal(JSON.parse(line).spiffeId, API);
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  child.kill("SIGTERM");
  assert.equal(await closed, 0);
});
