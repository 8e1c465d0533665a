import { join, resolve } from "node:path";
import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { endSupervisor, realpathOrNull, removeLink, STATE_LINK } from "../run/up/claim.ts";
import { recover } from "../run/up/recover.ts";
import { lockState, readRecord } from "../run/up/state.ts";
import { note, printJson } from "./ui.ts";

const GRACE_MS = 20_000;

export function define(program: Command): void {
  program
    .command("down")
    .description("end the mesh of a folder: every process it started, its sockets, namespaces and rules")
    .argument("[dir]", "folder with an everyhop.yaml, or a state folder", ".")
    .option("--json", "print what was done as JSON")
    .action(down);
}

async function down(dir: string, flags: { readonly json?: boolean }): Promise<void> {
  const ended = await endMesh(resolve(dir));
  if (flags.json === true) {
    printJson({ ended });
  } else {
    note(ended ? "all ended" : `no mesh runs in \`${resolve(dir)}\``);
  }
}

/** Ends the mesh of `dir`; false where none runs and none was left. */
async function endMesh(dir: string): Promise<boolean> {
  const place = join(dir, STATE_LINK);
  const stateDir = realpathOrNull(place) ?? (readRecord(dir) === null ? null : dir);
  if (stateDir === null) {
    return false;
  }
  const record = readRecord(stateDir);
  if (record === null) {
    return false;
  }
  const gone = await endSupervisor(record, GRACE_MS);
  const lock = gone ? lockState(stateDir) : null;
  if (lock === null) {
    throw new EveryhopError("failed-precondition", `process ${record.supervisor.pid} does not end`, {
      hint: `its log is in \`${stateDir}/logs\``,
    });
  }
  await recover(stateDir);
  removeLink(place);
  lock.release();
  return true;
}
