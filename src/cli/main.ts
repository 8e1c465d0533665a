import { enableCompileCache } from "node:module";
import { CommanderError } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import { allCommands, COMMANDS, makeProgram } from "./commands.ts";
import { reportFailure } from "./ui.ts";

enableCompileCache();

// `everyhop entry show | head`: who reads has enough, and that is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") {
    throw error;
  }
  process.exit();
});

async function main(argv: readonly string[]): Promise<void> {
  const word = argv.find((argument) => !argument.startsWith("-"));
  const wanted = word === undefined || word === "help" ? null : COMMANDS[word];
  if (word !== undefined && wanted === undefined) {
    const near = suggest(word, Object.keys(COMMANDS));
    throw new EveryhopError("usage", `unknown command \`${word}\``, {
      hint: near === null ? "`everyhop --help` lists the commands" : `did you mean \`${near}\`?`,
    });
  }
  const program = await makeProgram(wanted ?? allCommands());
  await program.parseAsync([...argv], { from: "user" });
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
