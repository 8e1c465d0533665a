/** The same over the network: a whole server, and agents that attest, watch and sync over mutual TLS. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cell } from "../../src/core/base/cell.ts";
import { parseTrustDomain } from "../../src/core/spiffe/id.ts";
import { newKey } from "../../src/identity/agent/csr.ts";
import { connectNodeApi, type NodeApi } from "../../src/identity/agent/node-api.ts";
import { makeSvid } from "../../src/identity/agent/own-identity.ts";
import { proveByJoinToken } from "../../src/identity/attest/node/join-token/prove.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { startServer } from "../../src/run/server.ts";
import { readServerConfig } from "../../src/run/server-config.ts";
import { agentId, fill, TRUST_DOMAIN, tokenOf } from "./fill.ts";

/** A line of figures: first sync of each agent, and from the order for an entry to its presence at the agent. */
export async function measureOverGrpc({ entries, agents }: { entries: number; agents: number }): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-bench-"));
  mkdirSync(join(dir, "data"), { mode: 0o700 });
  await fill(join(dir, "data/server.db"), entries, agents);
  const file = join(dir, "server.yaml");
  const addresses = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
  writeFileSync(file, `trustDomain: ${TRUST_DOMAIN}\ndataDir: data\nrateLimit: {attestation: false}\n${addresses}`);
  const server = await startServer(readServerConfig(file), { log: silentLog });
  const open: NodeApi[] = [];
  try {
    const connect = (svid: Parameters<typeof connectNodeApi>[0]["svid"]) => {
      const { ready, identity } = server;
      const trustDomain = parseTrustDomain(TRUST_DOMAIN);
      const authorities = new Cell(identity.authorities.value);
      const api = connectNodeApi({ server: ready.listen, trustDomain, authorities, svid, clock: systemClock });
      open.push(api);
      return api;
    };
    const joined: NodeApi[] = [];
    for (let agent = 0; agent < agents; agent++) {
      const { value } = await server.identity.nodes.createJoinToken({ value: tokenOf(agent) });
      const { keyDer, csr } = await newKey();
      const { chain } = await connect(null).attest(proveByJoinToken(value), csr);
      joined.push(connect(makeSvid(chain, keyDer)));
    }
    const started = performance.now();
    const synced = await Promise.all(joined.map((api) => api.entries(new Map())));
    const syncMs = performance.now() - started;
    const waits: number[] = [];
    for (const [agent, api] of joined.entries()) {
      waits.push(await propagation(server.registry, agent, api));
    }
    waits.sort((left, right) => left - right);
    const at = (share: number) => (waits[Math.floor(share * (waits.length - 1))] ?? 0).toFixed(1);
    const total = synced.reduce((sum, list) => sum + list.length, 0);
    return (
      `over mutual TLS, ${agents} agents, ${entries.toLocaleString("en")} entries: all synced ${total.toLocaleString("en")} entries in ` +
      `${Math.round(syncMs)} ms; a new entry was at its agent after ${at(0.5)} ms (median), ${at(0.95)} ms (95th of 100)`
    );
  } finally {
    for (const api of open) {
      api.close();
    }
    await server.close();
    rmSync(dir, { recursive: true });
  }
}

/** From the order for an entry until its agent, told by push, has fetched it. */
async function propagation(registry: Awaited<ReturnType<typeof startServer>>["registry"], agent: number, api: NodeApi) {
  let heard: () => void = () => {};
  const next = () =>
    new Promise<void>((resolve) => {
      heard = resolve;
    });
  const first = next();
  const stop = api.watch(
    () => heard(),
    () => {},
  );
  await first;
  const told = next();
  const started = performance.now();
  const draft = {
    spiffeId: `spiffe://${TRUST_DOMAIN}/pushed/${agent}`,
    parentId: agentId(agent),
    selectors: ["unix:uid:1"],
  };
  const { entry } = await registry.createEntry(draft);
  await told;
  const entries = await api.entries(new Map());
  const ms = performance.now() - started;
  stop();
  if (!entries.some(({ id }) => id === entry.id)) {
    throw new Error("the agent was told of an entry that it did not get");
  }
  return ms;
}
