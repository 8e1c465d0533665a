/** From an entry on a real server to the SVID in the open streams of several agents' workloads. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { credentials } from "@grpc/grpc-js";
import { parseTrustDomain } from "../../src/core/spiffe/id.ts";
import { Agent } from "../../src/gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../src/gen/spire/api/server/entry/v1/entry_pb.js";
import { startTestAgent, until } from "../../src/identity/agent/fixture.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { makeClient } from "../../src/io/rpc/adapter.ts";
import { startServer } from "../../src/run/server.ts";
import { readServerConfig } from "../../src/run/server-config.ts";
import { watchX509 } from "../../src/workload/workload-api.ts";
import type { X509Source } from "../../src/workload/x509-source.ts";

const AGENTS = 5;
const ROUNDS = 10;
const TD = "example.com";

test("an entry made on the server is pushed into every open stream that it is for", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-push-"));
  const closers: (() => unknown)[] = [() => rmSync(dir, { recursive: true, force: true })];
  t.after(async () => {
    for (const close of closers.reverse()) {
      await close();
    }
  });
  const file = join(dir, "server.yaml");
  writeFileSync(file, `trustDomain: ${TD}\ndataDir: data\nlisten: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n`);
  const server = await startServer(readServerConfig(file), { log: silentLog });
  closers.push(() => server.close());
  const admin = `unix:${server.ready.adminSocket}`;
  const agents = makeClient(Agent, admin, credentials.createInsecure());
  const entries = makeClient(Entry, admin, credentials.createInsecure(), { share: agents });
  closers.push(() => agents.close());
  const bundlePem = readFileSync(server.ready.trustBundle, "utf8");
  const parents: string[] = [];
  const sources: X509Source[] = [];
  for (let index = 0; index < AGENTS; index++) {
    const { value: joinToken } = await agents.createJoinToken({ ttl: 600 });
    const own = join(dir, `a${index}`);
    const as = { address: server.ready.listen, clock: systemClock, bundlePem };
    const agent = await startTestAgent(as, own, { joinToken, trustDomain: parseTrustDomain(TD) });
    closers.push(() => agent.close());
    parents.push(agent.own.value.svid.id);
    const source = watchX509({ socket: agent.socket, log: silentLog, clock: systemClock });
    closers.push(() => source.close());
    sources.push(source);
  }
  const selector = { type: "unix", value: `uid:${process.getuid?.()}` };
  const create = async (path: string) => {
    const made = parents.map((parent) => ({
      spiffeId: { trustDomain: TD, path },
      parentId: { trustDomain: TD, path: parent.slice(`spiffe://${TD}`.length) },
      selectors: [selector],
    }));
    const { results } = await entries.batchCreateEntry({ entries: made });
    assert.deepEqual(
      results.map(({ status }) => status?.code),
      parents.map(() => 0),
    );
  };
  await create("/first");
  await until(() => sources.every(({ svids }) => svids.value.length === 1), "the first identity everywhere");
  const tookMs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const startedAt = performance.now();
    const seen = sources.map(
      ({ svids }) =>
        new Promise<void>((resolve) => {
          const unwatch = svids.watch((now) => {
            if (now.length === round + 2) {
              unwatch();
              tookMs.push(performance.now() - startedAt);
              resolve();
            }
          });
        }),
    );
    await create(`/round-${round}`);
    await Promise.all(seen);
  }
  tookMs.sort((a, b) => a - b);
  const at = (share: number) => Math.round(tookMs[Math.floor((tookMs.length - 1) * share)] ?? 0);
  t.diagnostic(
    `${AGENTS} agents, ${ROUNDS} entries each: SVID in the stream after ${at(0.5)} ms (median), ${at(1)} ms (worst)`,
  );
  assert.equal(tookMs.length, AGENTS * ROUNDS);
});
