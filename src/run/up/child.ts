/** One process of a mesh: started in a session of its own, its output logged, ended with everything it started. */
import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { EveryhopError } from "../../core/base/errors.ts";
import { processStat } from "../../io/process.ts";
import { type LogFile, lineReader } from "./log-file.ts";

export interface ChildSpec {
  /** For people: `payment-service`, `sidecar of payment-service`, `server`. */
  readonly title: string;
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: LogFile;
  /**
   * `held`: the process waits, as itself but before its program, until `release`: what names it by its pid can be put in
   * place first. `tied`: one of ours, which ends when its standard input does, so that it never outlives us.
   */
  readonly kind: "held" | "tied";
  /** Each line of its standard output. */
  readonly onLine?: (line: string) => void;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Child {
  readonly title: string;
  readonly pid: number;
  /** With the pid it names one process for all time of one boot. */
  readonly startTime: string;
  readonly log: LogFile;
  readonly exited: Promise<Exit>;
  /** Null while it runs. */
  exit(): Exit | null;
  /** Lets a held process become its program. */
  release(): void;
  /** Ends it and its group at once. */
  kill(): void;
  /** Asks it to end (a tied one by its standard input too), and kills what is left after `graceMs`. */
  stop(graceMs: number): Promise<void>;
}

/** Waits for a line on descriptor 3, closes it, and becomes the command: same pid, same start time. */
export const HOLD = ["sh", "-c", 'read -r go <&3 || exit 1; exec "$@" 3<&-', "sh"] as const;

const LAST_WORDS_MS = 200;

export async function startChild(spec: ChildSpec): Promise<Child> {
  const [file, ...args] = spec.kind === "held" ? [...HOLD, ...spec.command] : spec.command;
  const child = spawn(file ?? "", args, {
    cwd: spec.cwd,
    env: spec.env,
    // A session of its own: a terminal's Ctrl-C reaches only us, and a signal to its group reaches all it started.
    detached: true,
    stdio: spec.kind === "held" ? ["ignore", "pipe", "pipe", "pipe"] : ["pipe", "pipe", "pipe"],
  });
  const end = watchEnd(child);
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(cannotStart(spec, error)));
  });
  readOutput(child, spec);
  const pid = child.pid ?? 0;
  const startTime = (await processStat(pid))?.startTime ?? "0";
  return {
    title: spec.title,
    pid,
    startTime,
    log: spec.log,
    ...end,
    release: () => release(child),
    kill: () => signalIfAlive(child, "SIGKILL"),
    async stop(graceMs) {
      child.stdin?.end();
      signalIfAlive(child, "SIGTERM");
      const timer = setTimeout(() => signalIfAlive(child, "SIGKILL"), graceMs);
      await end.exited;
      clearTimeout(timer);
    },
  };
}

function watchEnd(child: ChildProcess): Pick<Child, "exited" | "exit"> {
  let exit: Exit | null = null;
  const exited = new Promise<Exit>((resolve) => {
    // `close` rather than `exit`: its last words are read by then; yet a grandchild that holds the pipe is not waited for.
    const done = (code: number | null, signal: NodeJS.Signals | null): void => {
      exit ??= { code, signal };
      resolve(exit);
    };
    child.once("close", done);
    child.once("exit", (code, signal) => {
      // What it left behind in its group ends with it.
      signalGroup(child.pid, "SIGKILL");
      setTimeout(done, LAST_WORDS_MS, code, signal);
    });
  });
  return { exited, exit: () => exit };
}

/** RACE: once it is gone its number may be given to others, so nothing is sent to it later than at its exit. */
function signalIfAlive(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.exitCode === null && child.signalCode === null) {
    signalGroup(child.pid, signal);
  }
}

function cannotStart(spec: ChildSpec, error: Error): EveryhopError {
  return new EveryhopError("service-failed", `cannot start ${spec.title}: ${error.message}`, {
    hint: `check that \`${spec.command[0]}\` is there and may be executed`,
    cause: error,
  });
}

function readOutput(child: ChildProcess, spec: ChildSpec): void {
  const onLine = spec.onLine === undefined ? null : lineReader(spec.onLine);
  child.stdout?.on("data", (chunk: Buffer) => {
    spec.log.write(chunk);
    onLine?.(chunk);
  });
  child.stderr?.on("data", (chunk: Buffer) => spec.log.write(chunk));
  child.stdin?.on("error", () => {});
  child.on("error", () => {});
}

function release(child: ChildProcess): void {
  const gate = child.stdio[3] as Writable | null;
  gate?.on("error", () => {});
  gate?.end("go\n");
}

/** Signals the group that `pid` leads; a group that is gone is not an error. */
export function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid !== undefined && pid > 1) {
    try {
      process.kill(-pid, signal);
    } catch {
      // Gone already.
    }
  }
}
