/**
 * The full path: `everyhop server` with its signer, as they run, an agent over mutual TLS that asks for X.509-SVIDs in batches of a
 * hundred. CPU of server and signer together, beside the floor: one verification of a request with its key's import, one signature.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials } from "@grpc/grpc-js";
import { Cell } from "../../src/core/base/cell.ts";
import type { X509Svid } from "../../src/core/spiffe/svid.ts";
import { certificatesFromPem } from "../../src/core/x509/pem.ts";
import { Agent } from "../../src/gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../src/gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../src/gen/spire/api/server/svid/v1/svid_pb.js";
import { attest, id, testKey, wire } from "../../src/identity/server/fixture.ts";
import { makeClient } from "../../src/io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../../src/io/rpc/channel.ts";
import { cpuMs } from "../measure.ts";

const MAIN = join(import.meta.dirname, "../../src/cli/main.ts");
const BATCH = 100;
const IN_FLIGHT = 4;

export interface FullPath {
  readonly svids: number;
  readonly seconds: number;
  /** Microseconds of CPU for each SVID. */
  readonly server: number;
  readonly signer: number;
}

interface Ready {
  readonly listen: string;
  readonly adminSocket: string;
  readonly trustBundle: string;
}

async function startServer(dir: string, flags: readonly string[]): Promise<{ child: ChildProcess; ready: Ready }> {
  const file = join(dir, "server.yaml");
  const addresses = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
  const limits = "rateLimit: {signing: false}\nsigner: {maxPerSecond: 100000}\n";
  writeFileSync(file, `trustDomain: example.com\ndataDir: data\nlogLevel: error\n${addresses}${limits}`);
  const child = spawn(process.execPath, [...flags, MAIN, "server", "--config", file, "--exit-with-stdin"], {
    stdio: ["pipe", "pipe", "inherit"],
    cwd: dir,
  });
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout.once("data", (chunk: Buffer) => resolve(chunk.toString()));
    child.once("exit", (code) => reject(new Error(`the server exited with ${code}`)));
  });
  return { child, ready: JSON.parse(line) as Ready };
}

/** The children of a process: of the server there is one, its signer. */
function childOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0]);
}

/** Runs until `durationMs` have passed. `flags` are Node's own, for the server: `--cpu-prof`. */
export async function fullPath(durationMs: number, flags: readonly string[] = []): Promise<FullPath> {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-bench-"));
  const { child, ready } = await startServer(dir, flags);
  const pid = child.pid ?? 0;
  const clients: { close(): void }[] = [];
  try {
    const kept = <C extends { close(): void }>(client: C): C => {
      clients.push(client);
      return client;
    };
    const local = `unix:${ready.adminSocket}`;
    const bundle = new Cell<readonly Uint8Array[]>(certificatesFromPem(readFileSync(ready.trustBundle, "utf8")));
    const as = (svid: X509Svid | null) =>
      spiffeCredentials({
        svid: svid === null ? null : new Cell<X509Svid | null>(svid),
        authorities: bundle,
        refuse: () => null,
      });
    const { value } = await kept(makeClient(Agent, local, credentials.createInsecure())).createJoinToken({ ttl: 60 });
    const agent = await attest(kept(makeClient(Agent, ready.listen, as(null), SPIFFE_CHANNEL_OPTIONS)), value);
    const { results } = await kept(makeClient(Entry, local, credentials.createInsecure())).batchCreateEntry({
      entries: [
        {
          spiffeId: wire(id("/ns/production/sa/payment-service")),
          parentId: wire(agent.id),
          selectors: [{ type: "unix", value: "uid:0" }],
          dnsNames: ["payment-service.production"],
        },
      ],
    });
    const entryId = results[0]?.entry?.id ?? "";
    const own = { ...SPIFFE_CHANNEL_OPTIONS, "grpc.use_local_subchannel_pool": 1 };
    const svids = kept(makeClient(SVID, ready.listen, as(agent), own));
    const params = Array.from({ length: BATCH }, () => ({ entryId, csr: testKey().csr }));
    return await measure(durationMs, [pid, childOf(pid)], async () => {
      const answer = await svids.batchNewX509SVID({ params });
      const bad = answer.results.find(({ status }) => status?.code !== 0);
      if (bad !== undefined || answer.results.length !== BATCH) {
        throw new Error(`not issued: ${bad?.status?.message}`);
      }
    });
  } finally {
    for (const client of clients) {
      client.close();
    }
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.stdin?.end();
    await exited;
    if (existsSync(dir)) {
      rmSync(dir, { recursive: true });
    }
  }
}

async function measure(durationMs: number, pids: readonly number[], batch: () => Promise<void>): Promise<FullPath> {
  const until = async (end: number): Promise<number> => {
    let done = 0;
    const worker = async (): Promise<void> => {
      while (performance.now() < end) {
        await batch();
        done += BATCH;
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
    return done;
  };
  await until(performance.now() + durationMs / 4);
  const [before, start] = [pids.map(cpuMs), performance.now()];
  const svids = await until(start + durationMs);
  const used = pids.map((pid, index) => ((cpuMs(pid) - (before[index] ?? 0)) * 1_000) / svids);
  return { svids, seconds: (performance.now() - start) / 1_000, server: used[0] ?? 0, signer: used[1] ?? 0 };
}
