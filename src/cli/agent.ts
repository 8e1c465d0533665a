import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { makeLog } from "../io/log.ts";
import { runAgent } from "../run/agent.ts";
import { loadAgentConfig } from "../run/agent-config.ts";
import { untilStopped } from "../run/stop-signals.ts";
import { commandGroup } from "./command-group.ts";
import { formatIssueForPeople, note, print, printJson, reportFailure } from "./ui.ts";

interface Options {
  readonly config?: string;
  readonly check?: boolean;
  readonly exitWithStdin?: boolean;
  readonly json?: boolean;
}

export function define(program: Command): void {
  commandGroup(program, "agent", "the node's agent: attests local workloads and hands them their identities")
    .option("--config <file>", "configuration, YAML")
    .option("--check", "read the configuration, print findings and exit")
    .option("--exit-with-stdin", "end when standard input closes (the supervisor died)")
    .option("--json", "findings of --check as JSON; the line that says it is ready is always JSON")
    .addHelpText(
      "after",
      `
Examples:
  everyhop agent --config agent.yaml
  everyhop agent --config agent.yaml --check

A configuration needs:
  trustDomain: example.com
  server: server.internal:8081
  dataDir: /var/lib/everyhop/agent
  joinTokenFile: /etc/everyhop/join-token
  trustBundle: /etc/everyhop/bundle.pem`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  if (options.config === undefined) {
    throw new EveryhopError("usage", "`--config FILE` is missing", {
      hint: "`everyhop agent --help` shows what goes in it",
    });
  }
  if (options.check === true) {
    check(options.config, options.json === true);
    return;
  }
  const config = loadAgentConfig(options.config);
  const log = makeLog("agent", { level: config.logLevel });
  const stopped = untilStopped({ stdin: options.exitWithStdin === true });
  try {
    const first = await Promise.race([runAgent(config, log), stopped]);
    if (typeof first === "string") {
      log.info("the agent ends before it was ready", { why: first });
      process.exit(0);
    }
    printJson(first.ready);
    const why = await Promise.race([stopped, first.ended]);
    log.info("the agent ends", { why });
    await first.close();
  } catch (error) {
    // What waits for signals would keep the process alive.
    process.exit(reportFailure(error, options.json === true));
  }
}

function check(file: string, json: boolean): void {
  try {
    loadAgentConfig(file);
  } catch (error) {
    if (!(error instanceof EveryhopError) || error.issues.length === 0) {
      throw error;
    }
    process.exitCode = error.exitCode;
    if (json) {
      printJson({ ok: false, issues: error.issues });
    } else {
      note(error.issues.map(formatIssueForPeople).join("\n"));
    }
    return;
  }
  if (json) {
    printJson({ ok: true, issues: [] });
  } else {
    print(`${file}: ok`);
  }
}
