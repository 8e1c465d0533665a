/** `spire-server run|validate`. */
import { resolve } from "node:path";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import { checkServer } from "../../run/server-check.ts";
import type { ServerConfig } from "../../run/server-config.ts";
import { runServer } from "../server.ts";
import { formatIssueForPeople, note, print } from "../ui.ts";
import { readDomain } from "./bundle.ts";
import type { Commands } from "./command.ts";
import { type Flags, flag, type Given, text, UsageError } from "./flags.ts";

/** SPIRE's default, relative to the current folder. */
const DEFAULT_CONFIG = "conf/server/server.conf";

const RUN_FLAGS: Flags = {
  config: text(`Path to a SPIRE config file (default "${DEFAULT_CONFIG}")`),
  expandEnv: flag("Expand environment variables in the config file"),
  bindAddress: text("IP address or DNS name of the server"),
  serverPort: text("Port number of the server"),
  socketPath: text("Path to bind the API socket to"),
  trustDomain: text("The trust domain that this server belongs to"),
  dataDir: text("Directory to store runtime data to"),
  logLevel: text("'debug', 'info', 'warn', or 'error'"),
  logFormat: text("Not used here: the log is JSON"),
  logFile: text("Not used here: the log goes to standard error"),
};

const LEVELS = ["debug", "info", "warn", "error"] as const;

/** The command line wins over the file. */
function override(given: Given): (config: ServerConfig) => ServerConfig {
  const level = LEVELS.find((one) => one === given.text("logLevel").toLowerCase());
  if (given.has("logLevel") && level === undefined) {
    throw new UsageError(`invalid value "${given.text("logLevel")}" for flag -logLevel`);
  }
  return (config) => ({
    ...config,
    listen: config.listen.map(({ host, port }) => ({
      host: given.text("bindAddress") || host,
      port: given.has("serverPort") ? given.number("serverPort") : port,
    })),
    ...(given.has("socketPath") ? { adminSocket: resolve(given.text("socketPath")) } : {}),
    ...(given.has("trustDomain") ? { trustDomain: readDomain(given.text("trustDomain")) as TrustDomain } : {}),
    ...(given.has("dataDir") ? { dataDir: resolve(given.text("dataDir")) } : {}),
    ...(level === undefined ? {} : { logLevel: level }),
  });
}

async function run(given: Given): Promise<void> {
  const config = given.text("config") || DEFAULT_CONFIG;
  await runServer({ config, expandEnv: given.flag("expandEnv"), override: override(given) });
}

async function validate(given: Given): Promise<void> {
  const config = given.text("config") || DEFAULT_CONFIG;
  const { ok, issues } = checkServer(config, process.cwd(), { expandEnv: given.flag("expandEnv") });
  for (const issue of issues) {
    note(formatIssueForPeople(issue));
  }
  if (!ok) {
    throw new UsageError("SPIRE server configuration file is invalid");
  }
  print("SPIRE server configuration file is valid.");
}

export const SERVER_PROCESS_COMMANDS: Commands = {
  run: { synopsis: "Runs the server", flags: RUN_FLAGS, run },
  validate: { synopsis: "Validates a SPIRE server configuration file", flags: RUN_FLAGS, run: validate },
};
