/** Ends what a run that was killed left behind, by what it wrote down; the same at the end of every run. */

import { rmSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { EveryhopError } from "../../core/base/errors.ts";
import { processStat } from "../../io/process.ts";
import { removeNetworks } from "./isolate/network.ts";
import { bootId, type ProcessName, type RunRecord, readRecord, removeRecord } from "./state.ts";

const GONE_TIMEOUT_MS = 5_000;
const POLL_MS = 20;

/** In the environment of every service, so that what it starts can be told from everything else on the machine. */
export const RUN_VARIABLE = "EVERYHOP_RUN";

/** Whether the process runs. A zombie does not. */
export async function isAlive({ pid, startTime }: ProcessName): Promise<boolean> {
  const stat = await processStat(pid);
  return stat !== null && stat.startTime === startTime && stat.state !== "Z" && stat.state !== "X";
}

/** Resolves to whether every one of `processes` is gone within `timeoutMs`. */
export async function waitUntilGone(processes: readonly ProcessName[], timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const alive = await Promise.all(processes.map(isAlive));
    if (!alive.includes(true)) {
      return true;
    }
    if (Date.now() > deadline) {
      return false;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Kills the processes of a run that are not `except`: those recorded, and those that carry its name. */
export async function endProcesses(record: RunRecord, except: ReadonlySet<number> = new Set()): Promise<number> {
  if (record.bootId !== bootId()) {
    return 0;
  }
  const ended = new Set<number>();
  // What is killed may have started another in between: until none is found.
  for (let round = 0; round < 10; round++) {
    const recorded = await filterAsync(record.processes, isAlive);
    const found = [...recorded, ...(await processesOfRun(record.run))].filter(({ pid }) => !except.has(pid));
    if (found.length === 0) {
      return ended.size;
    }
    for (const { pid } of found) {
      ended.add(pid);
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone already, or not ours to end: the wait below tells.
      }
    }
    if (!(await waitUntilGone(found, GONE_TIMEOUT_MS))) {
      const pids = found.map(({ pid }) => pid).join(", ");
      throw new EveryhopError("failed-precondition", `processes of an earlier run do not end: ${pids}`, {
        hint: "end them, or ask the user who started them to",
      });
    }
  }
  return ended.size;
}

async function filterAsync<T>(items: readonly T[], keep: (item: T) => Promise<boolean>): Promise<T[]> {
  const kept = await Promise.all(items.map(keep));
  return items.filter((_, index) => kept[index]);
}

/** Processes we may look at whose environment names the run. */
async function processesOfRun(run: string): Promise<ProcessName[]> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid): Promise<ProcessName | null> => {
      const environment = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "");
      if (pid === process.pid || !environment.split("\0").includes(`${RUN_VARIABLE}=${run}`)) {
        return null;
      }
      const stat = await processStat(pid);
      return stat === null || stat.state === "Z" ? null : { pid, startTime: stat.startTime };
    }),
  );
  return found.filter((name) => name !== null);
}

/** Removes what a run made outside its processes. */
export async function removeTraces(stateDir: string, record: RunRecord): Promise<void> {
  if (record.bootId === bootId()) {
    await removeNetworks(record);
  }
  for (const file of [
    ...record.files,
    ...["mesh.json", "admin.sock", "run", "broker"].map((name) => join(stateDir, name)),
  ]) {
    rmSync(file, { force: true, recursive: true });
  }
  removeRecord(stateDir);
}

/**
 * Cleans up after a run that was killed, if `stateDir` holds the record of one. The caller has the folder's lock. Resolves to
 * the number of processes it ended, or null where there was nothing.
 */
export async function recover(stateDir: string): Promise<number | null> {
  const record = readRecord(stateDir);
  if (record === null) {
    return null;
  }
  const ended = await endProcesses(record);
  await removeTraces(stateDir, record);
  return ended;
}
