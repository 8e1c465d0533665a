/** `spire-agent`: SPIRE's command line for an agent of ours. */
import { enableCompileCache } from "node:module";
import { type Loads, runShim } from "./program.ts";

enableCompileCache();

const agent = async () => (await import("./agent-process.ts")).AGENT_PROCESS_COMMANDS;

const COMMANDS: Loads = {
  run: agent,
  validate: agent,
  healthcheck: agent,
  api: async () => (await import("./workload.ts")).WORKLOAD_COMMANDS,
};

process.exitCode = await runShim("spire-agent", COMMANDS, process.argv.slice(2));
