import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { makeLog } from "../io/log.ts";
import { startServer } from "../run/server.ts";
import { readServerConfig } from "../run/server-config.ts";
import { untilStopped } from "../run/stop-signals.ts";
import { formatIssueForPeople, note, print, printJson } from "./ui.ts";

interface Options {
  readonly config: string;
  readonly check?: boolean;
  readonly exitWithStdin?: boolean;
  readonly json?: boolean;
}

export function define(program: Command): void {
  program
    .command("server")
    .description("the control plane: attests agents, issues identities, distributes policy")
    .requiredOption("--config <file>", "configuration, YAML")
    .option("--check", "read the configuration, print findings and exit")
    .option("--exit-with-stdin", "end when standard input closes (the supervisor died)")
    .option("--json", "findings of --check as JSON; the line that says it is ready is always JSON")
    .addHelpText(
      "after",
      `
Examples:
  everyhop server --config server.yaml
  everyhop server --config server.yaml --check

A configuration needs little:
  trustDomain: example.com
  dataDir: /var/lib/everyhop/server
  policies: [policies/]`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  if (options.check === true) {
    check(options);
    return;
  }
  const config = readServerConfig(options.config);
  const log = makeLog("server", { level: config.logLevel });
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

function check({ config, json }: Options): void {
  try {
    readServerConfig(config);
  } catch (error) {
    if (!(error instanceof EveryhopError) || error.issues.length === 0) {
      throw error;
    }
    process.exitCode = error.exitCode;
    if (json === true) {
      printJson({ ok: false, issues: error.issues });
    } else {
      note(error.issues.map(formatIssueForPeople).join("\n"));
    }
    return;
  }
  if (json === true) {
    printJson({ ok: true, issues: [] });
  } else {
    print(`${config}: ok`);
  }
}
