import type { Command } from "commander";
import { EveryhopError, type Issue } from "../core/base/errors.ts";
import { makeLog } from "../io/log.ts";
import { dieWithLauncher } from "../io/own-process.ts";
import { runAgent } from "../run/agent.ts";
import { type AgentConfig, loadAgentFile } from "../run/agent-config.ts";
import { untilStopped } from "../run/stop-signals.ts";
import { commandGroup } from "./command-group.ts";
import { formatIssueForPeople, logFindings, note, print, printJson, reportFailure } from "./ui.ts";

export interface AgentProcessOptions {
  readonly config?: string;
  readonly check?: boolean;
  readonly expandEnv?: boolean;
  readonly exitWithStdin?: boolean;
  readonly json?: boolean;
  /** What the command line says instead of the file. */
  readonly override?: (config: AgentConfig) => AgentConfig;
}

export function define(program: Command): void {
  commandGroup(program, "agent", "the node's agent: attests local workloads and hands them their identities")
    .option("--config <file>", "configuration: YAML, or SPIRE's spire-agent.conf")
    .option("--check", "read the configuration, print findings and exit")
    .option("--expand-env", "in a configuration of SPIRE's: replace $NAME by the environment's")
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

/** Runs until it is told to stop. */
export async function run(options: AgentProcessOptions): Promise<void> {
  dieWithLauncher(process.env.EVERYHOP_LAUNCHER);
  if (options.config === undefined) {
    throw new EveryhopError("usage", "`--config FILE` is missing", {
      hint: "`everyhop agent --help` shows what goes in it",
    });
  }
  if (options.check === true) {
    check(options.config, options);
    return;
  }
  const { config: given, findings } = loadAgentFile(options.config, options);
  const config = options.override?.(given) ?? given;
  const log = makeLog("agent", { level: config.logLevel });
  logFindings(log, findings);
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

function check(file: string, options: AgentProcessOptions): void {
  const issues = issuesOf(file, options);
  const ok = issues.every(({ severity }) => severity !== "error");
  if (options.json === true) {
    printJson({ ok, issues });
  } else {
    for (const issue of issues) {
      note(formatIssueForPeople(issue));
    }
    print(`${file}: ${ok ? "ok" : "not valid"}`);
  }
  if (!ok) {
    process.exitCode = 2;
  }
}

export function issuesOf(file: string, options: AgentProcessOptions): readonly Issue[] {
  try {
    return loadAgentFile(file, options).findings;
  } catch (error) {
    if (error instanceof EveryhopError && error.issues.length > 0) {
      return error.issues;
    }
    throw error;
  }
}
