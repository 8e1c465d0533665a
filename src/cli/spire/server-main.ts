/** `spire-server`: SPIRE's command line for a server of ours. It asks over the same services as SPIRE's own does. */
import { enableCompileCache } from "node:module";
import { type Loads, runShim } from "./program.ts";

enableCompileCache();

const agents = async () => (await import("./agent.ts")).AGENT_COMMANDS;
const authorities = async () => (await import("./local-authority.ts")).AUTHORITY_COMMANDS;
const minting = async () => (await import("./mint.ts")).MINT_COMMANDS;
const server = async () => (await import("./server-process.ts")).SERVER_PROCESS_COMMANDS;

/** By its first word: only what is asked for is loaded. */
const COMMANDS: Loads = {
  run: server,
  validate: server,
  healthcheck: async () => (await import("./health.ts")).HEALTH_COMMANDS,
  token: agents,
  agent: agents,
  entry: async () => (await import("./entry.ts")).ENTRY_COMMANDS,
  bundle: async () => (await import("./bundle.ts")).BUNDLE_COMMANDS,
  federation: async () => (await import("./federation.ts")).FEDERATION_COMMANDS,
  localauthority: authorities,
  upstreamauthority: authorities,
  x509: minting,
  jwt: minting,
};

process.exitCode = await runShim("spire-server", COMMANDS, process.argv.slice(2));
