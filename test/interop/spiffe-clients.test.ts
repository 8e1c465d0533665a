/** The packages `spiffe` of PyPI and crates.io, unmodified, as workloads of our agent. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { after, before, beforeEach, test } from "node:test";
import type { RunningAgent } from "../../src/identity/agent/agent.ts";
import { startTestAgent, testFolder, until } from "../../src/identity/agent/fixture.ts";
import { FakeServer } from "../../src/identity/agent/server-fixture.ts";
import { systemClock } from "../../src/io/clock.ts";
import { type PeerName, peer, without } from "../peers.ts";

const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";
const BOTH = [
  { id: "b", spiffeId: WEB, selectors: [UID], createdAt: 1, hint: "internal", federatesWith: ["other.org"] },
  { id: "a", spiffeId: API, selectors: [UID], createdAt: 2 },
];

const server = new FakeServer(systemClock);
const folder = testFolder();
const children = new Set<ChildProcess>();
let agent: RunningAgent;

before(async () => {
  server.federated.set("other.org", [server.ca.der]);
  await server.listen();
  server.setEntries(...BOTH);
  agent = await startTestAgent(server, folder.dir);
});
beforeEach(async () => {
  server.state.svidTtlMs = 3_600_000;
  server.setEntries(...BOTH);
  await until(() => agent.cache.svidCount === 2 && agent.cache.entries.has("b"), "two SVIDs");
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
  readonly svids: readonly { readonly spiffeId: string; readonly chain: number; readonly leaf: string }[];
  readonly bundles: readonly { readonly trustDomain: string; readonly x509Authorities: number }[];
  readonly spiffeId: string;
  readonly token: string;
  readonly bundle: boolean;
  readonly error?: string;
  readonly watchError?: string;
}

function start(client: PeerName, command: string, ...args: readonly string[]) {
  const child = spawn(peer(client) as string, [command, agent.socket, ...args], {
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
  return {
    child,
    async line(wanted: (line: Line) => boolean = () => true): Promise<Line> {
      await until(() => lines.some(wanted) || child.exitCode !== null, command);
      const found = lines.find(wanted);
      assert.ok(found !== undefined, JSON.stringify(lines));
      return found;
    },
  };
}

for (const client of ["spiffe-python", "spiffe-rust"] as const) {
  const skip = without(client);

  test(`${client} takes our identities in our order, with every bundle`, { skip }, async () => {
    const { svids, bundles } = await start(client, "x509").line();
    assert.deepEqual(
      svids.map(({ spiffeId, chain }) => [spiffeId, chain]),
      [
        [WEB, 1],
        [API, 1],
      ],
    );
    const byName = bundles.map(({ trustDomain, x509Authorities }) => `${trustDomain} ${x509Authorities}`).sort();
    assert.deepEqual(byName, ["example.com 1", "other.org 1"]);
  });

  test(`${client} takes our JWT-SVIDs, has them validated, and believes what is refused`, { skip }, async () => {
    const { spiffeId, token } = await start(client, "jwt", "shop").line();
    assert.equal(spiffeId, WEB);
    const valid = await start(client, "validate", "shop", token).line();
    assert.deepEqual(valid, { spiffeId: WEB, bundle: true });
    const wrong = await start(client, "validate", "bank", token).line();
    assert.ok(wrong.error !== undefined, JSON.stringify(wrong));
  });

  test(`${client} follows rotation, withdrawal and return`, { skip }, async () => {
    server.state.svidTtlMs = 3_000;
    server.setEntries({ id: "c", spiffeId: WEB, selectors: [UID] });
    await until(() => agent.cache.entries.has("c") && agent.cache.svidCount === 1, "the SVID");
    const { line } = start(client, "watch");
    const first = await line();
    assert.equal(first.svids[0]?.spiffeId, WEB);
    await line(({ svids }) => svids !== undefined && svids[0]?.leaf !== first.svids[0]?.leaf);
    server.setEntries();
    await line(({ watchError }) => /PERMISSION_DENIED|NoIdentityIssued|PermissionDenied/.test(watchError ?? ""));
    server.setEntries({ id: "d", spiffeId: API, selectors: [UID] });
    await line(({ svids }) => svids?.[0]?.spiffeId === API);
  });
}
