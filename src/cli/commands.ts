/** The commands, and which modules define them: only what is asked for is loaded. */
import { Command } from "commander";
import { VERSION } from "../core/base/version.ts";

/** A module of a command adds it (and its subcommands) to the program. */
type Define = (program: Command) => void;
type Load = () => Promise<{ define: Define }>;

/** One module, two words: one function, so that it is loaded once where all are. */
const killAndRestore: Load = () => import("./kill.ts");

/** First word → the modules that define it; only what is asked for is loaded. */
export const COMMANDS: Readonly<Record<string, readonly Load[]>> = {
  up: [() => import("./up.ts")],
  down: [() => import("./down.ts")],
  exec: [() => import("./exec.ts")],
  status: [() => import("./status.ts")],
  why: [() => import("./why.ts")],
  kill: [killAndRestore],
  restore: [killAndRestore],
  server: [() => import("./server.ts")],
  agent: [() => import("./agent.ts"), () => import("./agent-admin.ts")],
  proxy: [() => import("./proxy.ts")],
  token: [() => import("./token.ts")],
  entry: [() => import("./entry.ts"), () => import("./entry-explain.ts"), () => import("./entry-apply.ts")],
  bundle: [() => import("./bundle.ts")],
  federation: [() => import("./federation.ts")],
  authority: [() => import("./authority.ts")],
  svid: [() => import("./svid.ts"), () => import("./svid-mint.ts")],
  audit: [() => import("./audit.ts")],
  policy: [() => import("./policy.ts")],
};

/** The program with the commands of `loads`. Nothing in it exits: a wrong command line throws. */
export async function makeProgram(loads: readonly Load[]): Promise<Command> {
  const program = new Command("everyhop")
    .description("a zero-trust mesh: SPIFFE identities, mutual TLS, per-request authorisation")
    .version(VERSION)
    .exitOverride()
    // An option belongs to the word it follows: `agent list --json` is not `agent --json`; `exec` passes its rest on.
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .showHelpAfterError("(--help says more)")
    .addHelpText(
      "after",
      "\nStart here:\n  everyhop up examples/payments     run the example mesh\n  everyhop status --dir examples/payments",
    );
  for (const { define } of await Promise.all(loads.map((load) => load()))) {
    define(program);
  }
  overrideExit(program);
  return program;
}

/** Every command there is. */
export function allCommands(): Load[] {
  return [...new Set(Object.values(COMMANDS).flat())];
}

/** Subcommands throw instead of exiting, like the program itself. */
function overrideExit(command: Command): void {
  for (const child of command.commands) {
    child.exitOverride().showHelpAfterError("(--help says more)");
    overrideExit(child);
  }
}
