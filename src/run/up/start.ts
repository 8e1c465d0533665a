import { resolve } from "node:path";
import { EveryhopError } from "../../core/base/errors.ts";
import { processStat } from "../../io/process.ts";
import { checkMesh, requireFreePorts } from "./check.ts";
import { claimState, releaseClaim } from "./claim.ts";
import { loopbackHost } from "./host.ts";
import { MeshRun, type RunningMesh, type UpOptions } from "./mesh-run.ts";
import { makeRunId } from "./plan.ts";
import { bootId, type ProcessName, RunJournal } from "./state.ts";

/** Starts the mesh. Nothing is left when it rejects. */
export async function startMesh(options: UpOptions): Promise<RunningMesh> {
  const startedAt = performance.now();
  const dir = resolve(options.dir);
  const host = options.isolate ? await (await import("./isolate/host.ts")).isolatedHost() : loopbackHost();
  const { mesh, programs } = await checkMesh(dir, options.environment);
  const claim = await claimState(dir, options.stateDir);
  for (const text of claim.notes) {
    options.onEvent({ kind: "note", text });
  }
  if (claim.recovered !== null) {
    const text = `an earlier run was killed: ended ${claim.recovered} of its processes and cleaned up`;
    options.onEvent({ kind: "note", text });
  }
  const run = makeRunId();
  let starting: MeshRun | null = null;
  try {
    if (!options.isolate) {
      await requireFreePorts(mesh);
    }
    const plan = await host.plan(mesh, programs, claim.stateDir, run);
    const supervisor = await ownName();
    const journal = new RunJournal(claim.stateDir, {
      run,
      bootId: bootId(),
      dir,
      supervisor,
      launcher: options.launcher,
      processes: [],
      files: [],
      networkNamespaces: [],
      links: [],
      nftTables: [],
    });
    starting = new MeshRun({ options, claim, host, plan, journal, supervisor, startedAt });
    return await starting.start();
  } catch (error) {
    await (starting === null ? releaseClaim(claim) : starting.stop(0).catch(() => {}));
    throw options.signal.aborted ? new EveryhopError("unavailable", "the start was interrupted") : error;
  }
}

async function ownName(): Promise<ProcessName> {
  const stat = await processStat(process.pid);
  if (stat === null) {
    throw new EveryhopError("not-supported", "`everyhop up` needs Linux with /proc", {
      hint: "run it in a Linux virtual machine or container",
    });
  }
  return { pid: process.pid, startTime: stat.startTime };
}
