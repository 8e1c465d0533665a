/** For tests: real processes, started and ended. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { silentLog } from "../../../io/log.ts";
import { processStat } from "../../../io/process.ts";
import { type Attestation, attestWorkload, type WorkloadAttestor } from "./attest.ts";
import type { ProcessReference } from "./observe.ts";
import { unixAttestor } from "./unix/unix.ts";

const children = new Set<ChildProcess>();

/** Starts a program; it has become that program when this returns. */
export async function run(command: string, args: readonly string[], options: SpawnOptions = {}): Promise<Started> {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"], ...options });
  children.add(child);
  await new Promise((resolve, reject) => child.once("spawn", resolve).once("error", reject));
  const pid = child.pid as number;
  return { child, pid, reference: { pid, pidfd: null, caller: null }, startTime: processStat(pid)?.startTime ?? "" };
}

export interface Started {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly startTime: string;
  readonly reference: ProcessReference;
}

/** Resolves when the process has written `text`. */
export async function says(child: ChildProcess, text: string): Promise<void> {
  let heard = "";
  await new Promise<void>((resolve, reject) => {
    child.stdout?.on("data", (chunk: Buffer) => {
      heard += chunk.toString();
      if (heard.includes(text)) {
        resolve();
      }
    });
    child.once("exit", () => reject(new Error(`it ended without saying \`${text}\`; it said \`${heard}\``)));
  });
}

export async function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    await new Promise((resolve) => child.once("exit", resolve));
  }
}

export function endAll(): void {
  for (const child of children) {
    child.kill("SIGKILL");
  }
  children.clear();
}

export function attest(
  reference: ProcessReference,
  attestors: readonly WorkloadAttestor[] = [unixAttestor(() => Date.now())],
): Promise<Attestation> {
  return attestWorkload(reference, attestors, () => true, silentLog);
}
