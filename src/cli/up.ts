import { type ChildProcess, fork } from "node:child_process";
import { join, resolve } from "node:path";
import { type Command, Option } from "commander";
import { EveryhopError, toEveryhopError } from "../core/base/errors.ts";
import { processStat } from "../io/process.ts";
import type { MeshDocument } from "../run/up/document.ts";
import { type LogFile, openLogFile } from "../run/up/log-file.ts";
import type { RunningMesh, UpEvent, UpOptions } from "../run/up/mesh-run.ts";
import { startMesh } from "../run/up/start.ts";
import type { ProcessName } from "../run/up/state.ts";
import { note, print, printJson } from "./ui.ts";
import { accessLine, eventText, readyText } from "./up-text.ts";

interface Flags {
  readonly detach?: boolean;
  readonly state?: string;
  readonly isolate?: boolean;
  readonly json?: boolean;
  readonly supervise?: boolean;
}

export function define(program: Command): void {
  program
    .command("up")
    .description("run the mesh described in DIR/everyhop.yaml: server, agent, sidecars and the services themselves")
    .argument("[dir]", "folder with an everyhop.yaml", ".")
    .option("--detach", "return once all is ready; `everyhop down` ends it")
    .option("--state <dir>", "folder for all it writes (default: DIR/.everyhop, which else is a link to it)")
    .option("--isolate", "each service in a network namespace and under a user of its own (Linux, root)")
    .option("--json", "print the running mesh as JSON; without --detach, then a line per request")
    .addHelpText("after", `\n${LOOPBACK_NOTE}`)
    // What --detach starts in the background; it talks to its starter over the channel that `fork` made.
    .addOption(new Option("--supervise").hideHelp())
    .action((dir: string, flags: Flags) =>
      flags.supervise === true
        ? supervise(dir, flags)
        : flags.detach === true
          ? detach(dir, flags)
          : foreground(dir, flags),
    );
}

const LOOPBACK_NOTE =
  "Without --isolate everything is on 127.0.0.1 under one user: any local process can dial a service's application port\n" +
  "or another one's outbound listener, past the sidecars. With --isolate the kernel keeps them apart.";

function upOptions(dir: string, flags: Flags): Omit<UpOptions, "launcher" | "onEvent" | "onGone" | "signal"> {
  return { dir, stateDir: flags.state ?? null, isolate: flags.isolate === true, environment: serviceOwner() };
}

/** What services inherit: our environment without what the launcher added. */
function serviceOwner(): NodeJS.ProcessEnv {
  const {
    EVERYHOP_LAUNCHER: _launcher,
    NODE_CHANNEL_FD: _fd,
    NODE_CHANNEL_SERIALIZATION_MODE: _mode,
    ...rest
  } = process.env;
  return rest;
}

const INTERRUPTED_EXIT = 130;

/** Runs the mesh in this process until a signal, or until the launcher is gone. */
async function foreground(dir: string, flags: Flags): Promise<void> {
  const json = flags.json === true;
  const launcher = await launcherName();
  let mesh: RunningMesh | null = null;
  const ending = new Ending();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      if (!ending.begun) {
        note(mesh === null ? "ending what was started" : "ending the mesh (Ctrl-C again kills it)");
      }
      ending.ask();
    });
  }
  onLauncherGone(launcher, () => ending.ask());
  try {
    mesh = await startMesh({
      ...upOptions(dir, flags),
      launcher,
      onGone: () => ending.ask(),
      signal: ending.signal,
      onEvent: (event) => tell(event, json, mesh !== null),
    });
  } catch (error) {
    if (!ending.begun) {
      throw error;
    }
    process.exit(INTERRUPTED_EXIT);
  }
  if (!ending.begun) {
    if (json) {
      printJson(mesh.document);
    } else {
      print(readyText(mesh.document, mesh.plan.mesh.try, dir));
    }
  }
  await ending.of(mesh);
  note("all ended");
  process.exit(0);
}

/** The wish that the mesh ends: told once it ends in good order, told again at once. */
class Ending {
  readonly #abort = new AbortController();
  #times = 0;
  #onAsked: () => void = () => {};

  /** Aborted with the first wish. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get begun(): boolean {
    return this.#times > 0;
  }

  ask(): void {
    this.#times += 1;
    this.#abort.abort();
    this.#onAsked();
  }

  /** Waits for the wish, then ends `mesh`. */
  async of(mesh: RunningMesh): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#onAsked = resolve;
      if (this.begun) {
        resolve();
      }
    });
    this.#onAsked = () => void mesh.stop(0).catch(() => {});
    await mesh.stop();
  }
}

function tell(event: UpEvent, json: boolean, ready: boolean): void {
  if (event.kind !== "access") {
    note(eventText(event));
  } else if (ready) {
    const line = json ? accessJson(event.line) : accessLine(event.service, event.line);
    if (line !== null) {
      print(line);
    }
  }
}

/** Lines of the access log are JSON already; what else a sidecar prints is for its log file. */
function accessJson(line: string): string | null {
  return line.startsWith('{"start_time"') ? line : null;
}

/** The launcher that waits for us and hands on our exit, where Node could not become us in place. */
async function launcherName(): Promise<ProcessName | null> {
  const pid = Number(process.env.EVERYHOP_LAUNCHER);
  const stat = Number.isInteger(pid) && pid === process.ppid ? await processStat(pid) : null;
  return stat === null ? null : { pid, startTime: stat.startTime };
}

const LAUNCHER_POLL_MS = 250;

/** A launcher that is killed cannot tell us: then our parent is another. */
function onLauncherGone(launcher: ProcessName | null, end: () => void): void {
  if (launcher !== null) {
    const timer = setInterval(() => {
      if (process.ppid !== launcher.pid) {
        clearInterval(timer);
        end();
      }
    }, LAUNCHER_POLL_MS);
    timer.unref();
  }
}

interface ReadyMessage {
  readonly ready: MeshDocument;
  readonly tries: readonly string[];
}

interface ErrorMessage {
  readonly error: Pick<EveryhopError, "code" | "message" | "issues"> & { readonly hint?: string };
}

/** What the background supervisor tells its starter. */
type Message = { readonly event: UpEvent } | ReadyMessage | ErrorMessage;

async function detach(dir: string, flags: Flags): Promise<void> {
  const args = ["up", resolve(dir), "--supervise"];
  if (flags.state !== undefined) {
    args.push("--state", resolve(flags.state));
  }
  if (flags.isolate === true) {
    args.push("--isolate");
  }
  const child = fork(process.argv[1] ?? "", args, {
    detached: true,
    stdio: ["ignore", "ignore", "ignore", "ipc"],
    env: serviceOwner(),
  });
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => child.kill("SIGTERM"));
  }
  const { ready, tries } = await startedBy(child);
  if (flags.json === true) {
    printJson(ready);
  } else {
    print(readyText(ready, tries, dir));
  }
  child.disconnect();
  child.unref();
}

/** What the supervisor says of its start. Errors: its own, once it is gone. */
function startedBy(child: ChildProcess): Promise<ReadyMessage> {
  return new Promise((resolve, reject) => {
    let failure: EveryhopError | null = null;
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      const text = `the supervisor ended (${signal ?? `code ${code}`}) before the mesh was ready`;
      reject(failure ?? new EveryhopError("unavailable", text));
    });
    child.on("message", (message: Message) => {
      if ("event" in message) {
        tell(message.event, true, false);
      } else if ("error" in message) {
        const { code, message: text, hint, issues } = message.error;
        failure = new EveryhopError(code, text, hint === undefined ? { issues } : { issues, hint });
      } else {
        child.removeAllListeners("exit");
        resolve(message);
      }
    });
  });
}

/** The background supervisor: reports to its starter until all is ready, to its log from then on. */
async function supervise(dir: string, flags: Flags): Promise<void> {
  const ending = new Ending();
  let ready = false;
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => ending.ask());
  }
  process.on("SIGHUP", () => {});
  process.once("disconnect", () => ready || ending.ask());
  let log: LogFile | null = null;
  const say = (text: string): void => log?.write(`${new Date().toISOString()} ${text}\n`);
  process.on("uncaughtException", (error) => say(error.stack ?? error.message));
  try {
    const mesh = await startMesh({
      ...upOptions(dir, flags),
      launcher: null,
      onGone: () => ending.ask(),
      signal: ending.signal,
      onEvent: (event) => {
        if (event.kind !== "access") {
          say(eventText(event));
          send({ event });
        }
      },
    });
    log = openLogFile(join(mesh.document.stateDir, "logs", "supervisor.log"));
    ready = true;
    send({ ready: mesh.document, tries: mesh.plan.mesh.try });
    await ending.of(mesh);
    process.exit(0);
  } catch (error) {
    const { code, message, hint, issues, exitCode } = toEveryhopError(error);
    say(message);
    send({ error: { code, message, ...(hint === undefined ? {} : { hint }), issues } }, () => process.exit(exitCode));
  }
}

/** To the starter, as long as it is there. */
function send(message: Message, done: () => void = () => {}): void {
  if (process.connected) {
    process.send?.(message, undefined, {}, done);
  } else {
    done();
  }
}
