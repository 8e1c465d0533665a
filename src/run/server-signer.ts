/** The server's signer: its process, what it is told at the start, and what operators hear of it. */
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { Gauge, type Registry as Metrics } from "prom-client";
import type { Clock } from "../core/base/clock.ts";
import type { Issue } from "../core/base/errors.ts";
import { SignerLink, type SignerState } from "../identity/authority/signer-link.ts";
import type { Setup } from "../identity/intent/intent.ts";
import type { Log } from "../io/log.ts";
import { diskStateFile, type StateFile } from "../io/state-file.ts";
import type { ServerConfig } from "./server-config.ts";
import { startSigner } from "./signer-process.ts";

/** Opens the signer of this setup. */
export type OpenSigner = (setup: Setup) => Promise<SignerLink>;

/** In a process of its own. Errors: those of the signer's setup. */
export function processSigner(clock: Clock, log: Log): OpenSigner {
  return (setup) => {
    const { keys, logDir } = setup;
    // Before it starts: it may open these and nothing else, and makes no folder beside them.
    for (const folder of [logDir, ...(keys.kind === "memory" ? [] : [keys.dir])]) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    }
    return SignerLink.open({ start: () => startSigner({ keys, logDir, log }), setup, clock, random: Math.random });
  };
}

export async function openServerSigner(config: ServerConfig, open: OpenSigner, log: Log): Promise<SignerLink> {
  const { trustDomain, dataDir, keys, ceilings } = config;
  const link = await open({ trustDomain, keys, ceilings, logDir: join(dataDir, "signer-log") });
  const { repairedBytes } = link.setUp;
  if (repairedBytes > 0) {
    log.warn("the signer's log ended in the middle of a record, which was cut off: it had been killed", {
      repairedBytes,
    });
  }
  link.state.watch(({ running, restarts, error }) => {
    if (running) {
      log.warn("the signer runs again", { restarts });
    } else {
      log.error("the signer does not run: nothing is issued until it does; it is started again", { error });
    }
  });
  return link;
}

/** What the server remembers of its authorities. Earlier versions kept it among the keys, which are the signer's now. */
export function authoritiesFile({ dataDir }: ServerConfig): StateFile {
  const path = join(dataDir, "authorities.json");
  const before = join(dataDir, "keys", "authorities.json");
  if (!existsSync(path) && existsSync(before)) {
    renameSync(before, path);
  }
  return diskStateFile(path);
}

/** For the status: that nothing is issued now, and why. */
export function signerProblems({ running, error }: SignerState): readonly Issue[] {
  return running
    ? []
    : [
        {
          code: error?.code ?? "unavailable",
          severity: "error",
          message: `the signer does not run, so nothing is issued: ${error?.message ?? "it ended"}`,
          hint: error?.hint ?? "it is started again by itself; the server's log says why it ended",
        },
      ];
}

export function registerSignerGauges(metrics: Metrics, state: () => Pick<SignerState, "running" | "restarts">): void {
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers: [metrics],
      collect() {
        this.set(read());
      },
    });
  };
  gauge("everyhop_server_signer_up", "1 while the signer's process runs: without it nothing is issued.", () =>
    state().running ? 1 : 0,
  );
  gauge("everyhop_server_signer_restarts", "How often the signer's process was started again.", () => state().restarts);
}
