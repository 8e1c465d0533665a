/** everyhop's own processes: started so that they end with us, restarted when they fail. */
import { extname, join } from "node:path";
import { type Child, startChild } from "./child.ts";
import type { LogFile } from "./log-file.ts";
import { waitForOwn } from "./ready.ts";

/** The CLI's entry, of the sources or of the build, whichever this file is of. */
export const CLI_ENTRY = join(import.meta.dirname, "..", "..", "cli", `main${extname(import.meta.filename)}`);

export interface OwnSpec {
  readonly title: string;
  readonly command: "server" | "agent" | "proxy";
  readonly configFile: string;
  /** What goes before the command: a namespace and a user. */
  readonly wrap: readonly string[];
  readonly log: LogFile;
  readonly cwd: string;
  /** Where Node keeps compiled code; null: nowhere. Never a folder that another user could write. */
  readonly cacheDir: string | null;
  readonly onLine?: (line: string) => void;
  readonly onStarted: (child: Child) => void;
}

/** A process of ours; `child` is the one that runs now. */
export interface Own {
  readonly title: string;
  child(): Child;
  /** From now on it is started again when it ends by itself, after a growing pause. */
  keepAlive(onRestart: (title: string, text: string) => void): void;
  stop(graceMs: number): Promise<void>;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const SETTLED_MS = 60_000;

export async function startOwn(spec: OwnSpec, timeoutMs: number, signal: AbortSignal): Promise<Own> {
  let stopping = false;
  let readySeen = false;
  let pauseMs = FIRST_PAUSE_MS;
  const start = (): Promise<Child> =>
    startChild({
      title: spec.title,
      command: [...spec.wrap, process.execPath, CLI_ENTRY, spec.command, "--config", spec.configFile, ...FLAGS],
      cwd: spec.cwd,
      env: ownEnvironment(spec.cacheDir),
      log: spec.log,
      kind: "tied",
      onLine: (line) => {
        readySeen ||= isReadyLine(line);
        spec.onLine?.(line);
      },
    });
  let child = await start();
  spec.onStarted(child);
  const own: Own = {
    title: spec.title,
    child: () => child,
    keepAlive(onRestart) {
      const startedAt = Date.now();
      child.exited.then(
        async () => {
          if (stopping) {
            return;
          }
          pauseMs = Date.now() - startedAt > SETTLED_MS ? FIRST_PAUSE_MS : Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
          onRestart(spec.title, `ended; it is started again in ${Math.round(pauseMs / 100) / 10} s`);
          await new Promise((resolve) => setTimeout(resolve, pauseMs));
          if (!stopping) {
            child = await start();
            spec.onStarted(child);
            own.keepAlive(onRestart);
          }
        },
        () => {},
      );
    },
    async stop(graceMs) {
      stopping = true;
      await child.stop(graceMs);
    },
  };
  try {
    await waitForOwn(child, () => readySeen, timeoutMs, signal);
  } catch (error) {
    await own.stop(0);
    throw error;
  }
  return own;
}

const FLAGS = ["--exit-with-stdin", "--json"];

/** Nothing of the user's settings for Node or for SPIFFE reaches our processes. */
function ownEnvironment(cacheDir: string | null): NodeJS.ProcessEnv {
  const {
    NODE_OPTIONS: _options,
    SPIFFE_ENDPOINT_SOCKET: _socket,
    EVERYHOP_LAUNCHER: _launcher,
    ...rest
  } = process.env;
  return { ...rest, ...(cacheDir === null ? { NODE_DISABLE_COMPILE_CACHE: "1" } : { NODE_COMPILE_CACHE: cacheDir }) };
}

function isReadyLine(line: string): boolean {
  if (!line.startsWith("{")) {
    return false;
  }
  try {
    return (JSON.parse(line) as { ready?: unknown }).ready === true;
  } catch {
    return false;
  }
}
