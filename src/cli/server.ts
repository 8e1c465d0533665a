import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { makeLog } from "../io/log.ts";
import { dieWithLauncher } from "../io/own-process.ts";
import { startServer } from "../run/server.ts";
import { checkServer } from "../run/server-check.ts";
import { readServerFile, type ServerConfig } from "../run/server-config.ts";
import { untilStopped } from "../run/stop-signals.ts";
import { formatIssueForPeople, logFindings, note, print, printJson } from "./ui.ts";

interface Options {
  readonly config?: string;
  readonly check?: boolean;
  readonly expandEnv?: boolean;
  readonly exitWithStdin?: boolean;
  readonly json?: boolean;
}

export interface ServerProcessOptions extends Options {
  readonly config: string;
  /** What the command line says instead of the file. */
  readonly override?: (config: ServerConfig) => ServerConfig;
}

export function define(program: Command): void {
  program
    .command("server")
    .description("the control plane: attests agents, issues identities, distributes policy")
    .argument("[file...]", "with --check: more to check, configurations and the Kubernetes manifests that deploy them")
    .option("--config <file>", "configuration: YAML, or SPIRE's spire-server.conf")
    .option("--check", "read the configuration, print findings and exit")
    .option("--expand-env", "in a configuration of SPIRE's: replace $NAME by the environment's")
    .option("--exit-with-stdin", "end when standard input closes (the supervisor died)")
    .option("--json", "findings of --check as JSON; the line that says it is ready is always JSON")
    .addHelpText(
      "after",
      `
Examples:
  everyhop server --config server.yaml
  everyhop server --config server.yaml --check
  everyhop server --check spire-server.conf statefulset.yaml

A configuration needs little:
  trustDomain: example.com
  dataDir: /var/lib/everyhop/server
  policies: [policies/]`,
    )
    .action(run);
}

async function run(more: readonly string[], options: Options): Promise<void> {
  const { config } = options;
  const files = [...(config === undefined ? [] : [config]), ...more];
  if (options.check === true && files.length > 0) {
    check(files, options);
  } else if (config !== undefined && more.length === 0) {
    await runServer({ ...options, config });
  } else {
    throw new EveryhopError("usage", config === undefined ? "`--config FILE` is missing" : "files go with `--check`", {
      hint: "`everyhop server --help` shows what goes in it",
    });
  }
}

/** Runs until it is told to stop. */
export async function runServer(options: ServerProcessOptions): Promise<void> {
  dieWithLauncher(process.env.EVERYHOP_LAUNCHER);
  const { config: given, findings } = readServerFile(options.config, options);
  const config = options.override?.(given) ?? given;
  const log = makeLog("server", { level: config.logLevel });
  logFindings(log, findings);
  // Before it starts: a signal that comes meanwhile ends it too, once what was begun can be ended whole.
  const failed = new AbortController();
  const stopped = untilStopped({ stdin: options.exitWithStdin === true, cancel: failed.signal });
  const server = await startServer(config, { log }).catch((error: unknown) => {
    failed.abort();
    throw error;
  });
  printJson(server.ready);
  log.info("the server ends", { why: await stopped });
  await server.close();
}

function check(files: readonly string[], options: Options): void {
  const { ok, issues } = checkServer(files, process.cwd(), options);
  if (options.json === true) {
    printJson({ ok, issues });
  } else {
    for (const issue of issues) {
      note(formatIssueForPeople(issue));
    }
    print(`${files.join(", ")}: ${ok ? "ok" : "not valid"}`);
  }
  if (!ok) {
    process.exitCode = 2;
  }
}
