/** go-spiffe, the reference client, as a workload of our agent. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { after, before, test } from "node:test";
import type { RunningAgent } from "../../src/identity/agent/agent.ts";
import { startTestAgent, testFolder, until } from "../../src/identity/agent/fixture.ts";
import { FakeServer } from "../../src/identity/agent/server-fixture.ts";
import { systemClock } from "../../src/io/clock.ts";
import { peer, without } from "../peers.ts";

const skip = without("go-spiffe");
const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";

const server = new FakeServer(systemClock);
const folder = testFolder();
const children = new Set<ChildProcess>();
let agent: RunningAgent;

before(async () => {
  await server.listen();
  server.setEntries(
    { id: "b", spiffeId: WEB, selectors: [UID], createdAt: 1, hint: "internal" },
    { id: "a", spiffeId: API, selectors: [UID], createdAt: 2 },
  );
  agent = await startTestAgent(server, folder.dir);
  await until(() => agent.cache.svidCount === 2, "two SVIDs");
});
after(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
  }
  await agent.close();
  await server.close();
  folder.remove();
});

interface Line {
  readonly [name: string]: unknown;
}

/** Starts a command of the client; `line(n)` is the n-th line it prints. */
function start(command: string, ...args: readonly string[]) {
  const child = spawn(peer("go-spiffe") as string, [command, "-socket", agent.socket, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.add(child);
  const lines: Line[] = [];
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk;
    const whole = text.split("\n");
    text = whole.pop() ?? "";
    lines.push(...whole.map((one) => JSON.parse(one) as Line));
  });
  const line = async (index: number): Promise<Line> => {
    await until(() => lines.length > index || child.exitCode !== null, `line ${index} of ${command}`);
    return lines[index] ?? {};
  };
  return { child, line };
}

test("it takes our identities, in our order, with hints and bundle", { skip }, async () => {
  const { svids, bundles } = (await start("x509").line(0)) as { svids: Line[]; bundles: Line[] };
  assert.deepEqual(
    svids.map(({ spiffeId, hint, chain }) => [spiffeId, hint, chain]),
    [
      [WEB, "internal", 1],
      [API, "", 1],
    ],
  );
  assert.deepEqual(bundles, [{ trustDomain: "example.com", x509Authorities: 1 }]);
});

test("it takes our JWT-SVIDs, and validates them as we do", { skip }, async () => {
  const { spiffeId, token } = await start("jwt", "-audience", "shop").line(0);
  assert.equal(spiffeId, WEB);
  const valid = await start("validate", "-audience", "shop", "-token", String(token)).line(0);
  assert.deepEqual(valid, { spiffeId: WEB, local: WEB });
  const wrong = await start("validate", "-audience", "bank", "-token", String(token)).line(0);
  assert.match(String(wrong.error), /InvalidArgument/);
});

test("two of them talk mutual TLS with what we gave them", { skip }, async () => {
  const { listening } = await start("serve", "-id", WEB).line(0);
  const answer = await start("get", "-url", `https://${listening}/hello`, "-id", WEB).line(0);
  assert.deepEqual(answer, { status: 200, body: `${WEB} GET /hello\n` });
  const refused = await start("get", "-url", `https://${listening}/hello`, "-id", API).line(0);
  assert.match(String(refused.error), /unexpected ID/);
});

test("it follows rotation, withdrawal and return", { skip }, async () => {
  server.state.svidTtlMs = 3_000;
  server.setEntries({ id: "c", spiffeId: WEB, selectors: [UID] });
  await until(() => agent.cache.entries.has("c") && agent.cache.svidCount === 1, "the SVID");
  const { line } = start("watch", "-updates", "4");
  const first = await line(0);
  const second = await line(1);
  assert.deepEqual([first.spiffeId, second.spiffeId], [WEB, WEB]);
  assert.notEqual(first.serial, second.serial);
  server.setEntries();
  let index = 2;
  while ((await line(index)).watchError === undefined) {
    index += 1;
  }
  assert.match(String((await line(index)).watchError), /PermissionDenied.*no identity issued/);
  server.setEntries({ id: "d", spiffeId: API, selectors: [UID] });
  while ((await line(index)).watchError !== undefined) {
    index += 1;
  }
  assert.equal((await line(index)).spiffeId, API);
});
