/**
 * A pair of sidecars between a client and a service, HTTP/1.1 with keep-alive: the latency and the CPU time they add, beside a
 * direct call, and beside pairs of HAProxy and Envoy in the same run where they are on the machine. Rounds take turns, so that a
 * busy moment of the machine hits all alike; medians over the rounds.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { peer } from "../../test/peers.ts";
import { median, ratio, table } from "../measure.ts";
import { startEnvoyPair } from "./envoy.ts";
import { startEveryhopPair } from "./everyhop.ts";
import { startHaproxyPair } from "./haproxy.ts";
import { type Load, type Measured, measure } from "./load.ts";
import { type Pair, writeCertificates } from "./pair.ts";

const CONNECTIONS = [1, 32, 128];
/** Requests per second of the latency measurement: what every pair can take on a small machine. */
const RATE = 2_000;

async function startPairs(folder: string): Promise<Pair[]> {
  const everyhop = await startEveryhopPair(folder);
  const direct: Pair = { name: "direct", address: everyhop.backend, pids: [], stop: async () => {} };
  const pairs: Pair[] = [direct, everyhop];
  writeCertificates(folder);
  const [haproxy, envoy] = [peer("haproxy"), peer("envoy")];
  try {
    if (haproxy !== null) {
      pairs.push(await startHaproxyPair(haproxy, folder, everyhop.backend, "http/1.1"));
      pairs.push(await startHaproxyPair(haproxy, folder, everyhop.backend, "h2"));
    }
    if (envoy !== null) {
      pairs.push(await startEnvoyPair(envoy, folder, everyhop.backend, false));
      pairs.push(await startEnvoyPair(envoy, folder, everyhop.backend, true));
    }
    return pairs;
  } catch (error) {
    await Promise.all(pairs.map((pair) => pair.stop()));
    throw error;
  }
}

type Results = Map<string, Measured[]>;

async function measureAll(
  h2load: string,
  folder: string,
  pairs: readonly Pair[],
  load: Load,
  rounds: number,
): Promise<Results> {
  const results: Results = new Map(pairs.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const pair of pairs) {
      results.get(pair.name)?.push(await measure(h2load, folder, pair, load));
    }
  }
  return results;
}

const over = (results: readonly Measured[], pick: (one: Measured) => number): number => median(results.map(pick));
const ms = (us: number): string => (us / 1_000).toFixed(us < 10_000 ? 2 : 1);

function throughputTable(results: Results): string {
  const ours = over(results.get("everyhop pair") ?? [], ({ cpuUsPerRequest }) => cpuUsPerRequest);
  const rows = [...results].map(([name, measured]) => {
    const cpu = over(measured, ({ cpuUsPerRequest }) => cpuUsPerRequest);
    return [
      name,
      Math.round(over(measured, ({ perSecond }) => perSecond)),
      name === "direct" ? "-" : cpu.toFixed(0),
      name === "direct" ? "-" : ratio(cpu, ours),
      ms(over(measured, ({ p50Us }) => p50Us)),
      ms(over(measured, ({ p99Us }) => p99Us)),
      measured.reduce((sum, { failed }) => sum + failed, 0),
    ];
  });
  return table(["", "requests/s", "CPU us/request", "of ours", "p50 ms", "p99 ms", "failed"], rows);
}

function latencyTable(results: Results): string {
  const direct = over(results.get("direct") ?? [], ({ p50Us }) => p50Us);
  const rows = [...results].map(([name, measured]) => {
    const p50 = over(measured, ({ p50Us }) => p50Us);
    return [
      name,
      ms(p50),
      name === "direct" ? "-" : ms(p50 - direct),
      ms(over(measured, ({ p99Us }) => p99Us)),
      ms(over(measured, ({ p999Us }) => p999Us)),
      measured.reduce((sum, { failed }) => sum + failed, 0),
    ];
  });
  return table(["", "p50 ms", "added", "p99 ms", "p99.9 ms", "failed"], rows);
}

async function main(quick: boolean): Promise<number> {
  const h2load = peer("h2load");
  if (h2load === null) {
    console.log("needs h2load (Debian: nghttp2-client, or tools/peers)");
    return 0;
  }
  const [rounds, seconds] = quick ? [1, 1] : [3, 4];
  const folder = mkdtempSync(join(tmpdir(), "everyhop-bench-"));
  let pairs: Pair[] = [];
  try {
    pairs = await startPairs(folder);
    // Code is compiled, connections and certificates are warm.
    await measureAll(h2load, folder, pairs, { connections: 32, seconds: quick ? 1 : 3, rate: null }, 1);
    for (const connections of CONNECTIONS) {
      console.log(`\nas many as it takes, ${connections} connections, median of ${rounds}`);
      console.log(
        throughputTable(await measureAll(h2load, folder, pairs, { connections, seconds, rate: null }, rounds)),
      );
    }
    console.log(`\n${RATE} requests/s, 32 connections, median of ${rounds}`);
    console.log(
      latencyTable(await measureAll(h2load, folder, pairs, { connections: 32, seconds, rate: RATE }, rounds)),
    );
    return 0;
  } finally {
    await Promise.all(pairs.map((pair) => pair.stop()));
    rmSync(folder, { recursive: true, force: true });
  }
}

process.exitCode = await main(process.argv.includes("--quick"));
