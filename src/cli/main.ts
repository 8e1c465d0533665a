import { enableCompileCache } from "node:module";
import { Command, CommanderError } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import { reportFailure } from "./ui.ts";

enableCompileCache();

/** A module of a command adds it (and its subcommands) to the program. */
type Define = (program: Command) => void;
type Load = () => Promise<{ define: Define }>;

/** First word → the modules that define it; only what is asked for is loaded. */
const COMMANDS: Readonly<Record<string, readonly Load[]>> = {
  up: [() => import("./up.ts")],
  down: [() => import("./down.ts")],
  exec: [() => import("./exec.ts")],
  status: [() => import("./status.ts")],
  why: [() => import("./why.ts")],
  kill: [() => import("./kill.ts")],
  restore: [() => import("./kill.ts")],
  server: [() => import("./server.ts")],
  agent: [() => import("./agent.ts"), () => import("./agent-admin.ts")],
  proxy: [() => import("./proxy.ts")],
  token: [() => import("./token.ts")],
  entry: [() => import("./entry.ts"), () => import("./entry-explain.ts")],
  bundle: [() => import("./bundle.ts")],
  svid: [() => import("./svid.ts"), () => import("./svid-mint.ts")],
  audit: [() => import("./audit.ts")],
  policy: [() => import("./policy.ts")],
};

async function main(argv: readonly string[]): Promise<void> {
  const program = new Command("everyhop")
    .description("a zero-trust mesh: SPIFFE identities, mutual TLS, per-request authorisation")
    .version("0.1.0")
    .exitOverride()
    .showSuggestionAfterError()
    .showHelpAfterError("(--help says more)")
    .addHelpText(
      "after",
      "\nStart here:\n  everyhop up examples/payments     run the example mesh\n  everyhop status --dir examples/payments",
    );
  const word = argv.find((argument) => !argument.startsWith("-"));
  const wanted = word === undefined || word === "help" ? null : COMMANDS[word];
  if (word !== undefined && wanted === undefined) {
    const near = suggest(word, Object.keys(COMMANDS));
    throw new EveryhopError("usage", `unknown command \`${word}\``, {
      hint: near === null ? "`everyhop --help` lists the commands" : `did you mean \`${near}\`?`,
    });
  }
  const loads = wanted ?? [...new Set(Object.values(COMMANDS).flat())];
  for (const { define } of await Promise.all(loads.map((load) => load()))) {
    define(program);
  }
  overrideExit(program);
  await program.parseAsync([...argv], { from: "user" });
}

/** Subcommands throw instead of exiting, like the program itself. */
function overrideExit(command: Command): void {
  for (const child of command.commands) {
    child.exitOverride().showHelpAfterError("(--help says more)");
    overrideExit(child);
  }
}

try {
  const argv = process.argv.slice(2);
  await main(argv.length === 0 ? ["--help"] : argv);
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed it; a wrong command line is exit code 2, asking for help is none.
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.exitCode = reportFailure(error, process.argv.includes("--json"));
  }
}
