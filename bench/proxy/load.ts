/** Load by h2load over plain HTTP/1.1 with keep-alive, and the latency of every request. */
import { spawn } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cpuMs } from "../measure.ts";
import type { Pair } from "./pair.ts";

export interface Measured {
  readonly requests: number;
  readonly perSecond: number;
  /** CPU time of the pair's processes. */
  readonly cpuUsPerRequest: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly failed: number;
}

export interface Load {
  readonly connections: number;
  readonly seconds: number;
  /** Requests per second over all connections; null: as many as it takes. */
  readonly rate: number | null;
}

export async function measure(h2load: string, folder: string, pair: Pair, load: Load): Promise<Measured> {
  const log = join(folder, "requests.tsv");
  rmSync(log, { force: true });
  const args = ["--h1", "-c", String(load.connections), "-t", "1", "-D", String(load.seconds), `--log-file=${log}`];
  if (load.rate !== null) {
    args.push(`--rps=${load.rate / load.connections}`);
  }
  const before = pair.pids.map(cpuMs);
  await run(h2load, [...args, `http://${pair.address}/`]);
  const cpu = pair.pids.reduce((sum, pid, index) => sum + cpuMs(pid) - (before[index] ?? 0), 0);
  return evaluate(readFileSync(log, "latin1"), load.seconds, cpu);
}

/** Rows: start in µs since the epoch, status, µs until the end of the answer. */
function evaluate(log: string, seconds: number, cpu: number): Measured {
  const times: number[] = [];
  let failed = 0;
  for (const row of log.split("\n")) {
    const [, status, time] = row.split("\t");
    if (status === "200") {
      times.push(Number(time));
    } else if (status !== undefined) {
      failed++;
    }
  }
  times.sort((a, b) => a - b);
  const at = (share: number): number =>
    times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? Number.NaN;
  return {
    requests: times.length,
    perSecond: times.length / seconds,
    cpuUsPerRequest: (cpu * 1_000) / times.length,
    p50Us: at(0.5),
    p99Us: at(0.99),
    p999Us: at(0.999),
    failed,
  };
}

function run(command: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(`h2load: ${said}`))));
  });
}
