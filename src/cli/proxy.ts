import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { makeLog } from "../io/log.ts";
import { dieWithLauncher } from "../io/own-process.ts";
import { runProxy } from "../run/proxy.ts";
import { loadProxyConfig } from "../run/proxy-config.ts";
import { untilStopped } from "../run/stop-signals.ts";
import { formatIssueForPeople, note, print, printJson, reportFailure } from "./ui.ts";

interface Options {
  readonly config?: string;
  readonly check?: boolean;
  readonly exitWithStdin?: boolean;
  readonly json?: boolean;
}

export function define(program: Command): void {
  program
    .command("proxy")
    .description("a service's sidecar: mutual TLS and policy for all that comes in and goes out")
    .option("--config <file>", "configuration, YAML")
    .option("--check", "read the configuration, print findings and exit")
    .option("--exit-with-stdin", "end when standard input closes (the supervisor died)")
    .option("--json", "findings of --check as JSON; the line that says it is ready is always JSON")
    .addHelpText(
      "after",
      `
Examples:
  everyhop proxy --config proxy.yaml
  everyhop proxy --config proxy.yaml --check

A configuration:
  service: payment-service
  namespace: production
  trustDomain: example.com
  agentSocket: unix:///run/everyhop/agent.sock
  brokerSocket: unix:///run/everyhop/broker.sock
  control: server.internal:15010
  workload: {spiffeId: spiffe://example.com/ns/production/sa/payment-service, pidFile: /run/payment-service.pid}
  inbound: 0.0.0.0:15006
  app: 127.0.0.1:8080
  outbound: {postgres-proxy: 127.0.0.1:15432}
  metrics: 127.0.0.1:15020`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  dieWithLauncher(process.env.EVERYHOP_LAUNCHER);
  if (options.config === undefined) {
    throw new EveryhopError("usage", "`--config FILE` is missing", {
      hint: "`everyhop proxy --help` shows what goes in it",
    });
  }
  if (options.check === true) {
    check(options.config, options.json === true);
    return;
  }
  const config = loadProxyConfig(options.config);
  const log = makeLog("proxy", { level: config.logLevel, fields: { service: config.service } });
  const stopped = untilStopped({ stdin: options.exitWithStdin === true });
  try {
    const proxy = await runProxy(config, log);
    printJson(proxy.ready);
    log.info("the sidecar ends", { why: await stopped });
    await proxy.close();
    process.exit(0);
  } catch (error) {
    // What waits for signals would keep the process alive.
    process.exit(reportFailure(error, options.json === true));
  }
}

function check(file: string, json: boolean): void {
  try {
    loadProxyConfig(file);
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
