/** Starts the signer's process. */
import { spawn } from "node:child_process";
import { realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, extname, join, sep } from "node:path";
import type { Duplex } from "node:stream";
import type { StartedSigner } from "../identity/authority/signer-link.ts";
import type { KeyPlace } from "../identity/intent/intent.ts";
import type { Log } from "../io/log.ts";

/** It ends by itself, once what it was writing is on disk. */
const STOP_MS = 5_000;

/** The signer's program, of the sources or of the build, whichever this file is of. */
const ENTRY = join(import.meta.dirname, `signer${extname(import.meta.filename)}`);

export interface SignerProcessOptions {
  readonly keys: KeyPlace;
  readonly logDir: string;
  readonly log: Log;
  /** Program and arguments; default: `signer.ts`. Crash tests have one of their own. */
  readonly program?: readonly string[];
}

/**
 * Starts a signer that talks over a socket pair which nobody else holds, and which ends it. It gets nothing of our environment
 * but what its token's library may need, and may open no file beyond the program, its keys and its log.
 */
export function startSigner({ keys, logDir, log, program = [ENTRY] }: SignerProcessOptions): StartedSigner {
  const child = spawn(process.execPath, [...flagsFor(keys, logDir), ...program], {
    env: environmentFor(keys),
    // The socket is descriptor 3: the server parses peers' bytes, and what it prints could not be mistaken for a message.
    stdio: ["ignore", "ignore", "inherit", "pipe"],
    windowsHide: true,
  });
  const socket = child.stdio[3] as Duplex;
  const exited = new Promise<void>((resolve) => {
    child.once("error", (error) => {
      log.error("the signer's process cannot be started", { error });
      socket.destroy(error);
      resolve();
    });
    child.once("exit", (code, signal) => {
      if (code !== 0) {
        log.error("the signer's process ended", { pid: child.pid, code, signal });
      }
      socket.destroy();
      resolve();
    });
  });
  return {
    socket,
    pid: child.pid ?? null,
    async stop() {
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** Node's permission model: what is read and written is named; no children, no workers, no inspector. A token's library is native code, which it does not bind. */
function flagsFor(keys: KeyPlace, logDir: string): string[] {
  const folders = [logDir, ...(keys.kind === "memory" ? [] : [keys.dir])];
  const files = keys.kind === "pkcs11" ? [keys.pinFile, ...realPath(keys.pinFile)] : [];
  return [
    "--permission",
    "--allow-addons",
    "--disable-sigusr1",
    "--disable-warning=SecurityWarning",
    ...[packageRoot(), packagesFolder(), ...folders, ...files].map((path) => `--allow-fs-read=${path}`),
    ...folders.map((path) => `--allow-fs-write=${path}`),
  ];
}

/** What a link leads to; nothing where the signer will say that it is missing. */
function realPath(path: string): string[] {
  try {
    return [realpathSync(path)];
  } catch {
    return [];
  }
}

/** The folder that holds the program. */
function packageRoot(): string {
  return realpathSync(join(dirname(ENTRY), "..", ".."));
}

/** Where the packages it needs really lie: installed beside others, or linked from elsewhere, that is not below the program. */
function packagesFolder(): string {
  const found = createRequire(import.meta.url).resolve("koffi");
  const folder = `${sep}node_modules${sep}`;
  return found.slice(0, found.indexOf(folder) + folder.length - 1);
}

/** What libraries of tokens find their configuration by. */
const TOKEN_VARIABLES = /^(?:HOME|SOFTHSM2_CONF|OPENSC_CONF|P11_KIT_.*|YUBIHSM_PKCS11_CONF|.*_PKCS11_.*)$/;

function environmentFor(keys: KeyPlace): NodeJS.ProcessEnv {
  const wanted =
    keys.kind === "pkcs11" ? Object.entries(process.env).filter(([name]) => TOKEN_VARIABLES.test(name)) : [];
  return Object.fromEntries(wanted);
}
