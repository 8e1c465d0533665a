import type { Command } from "commander";

/** The command `name` of the program, under which several modules put their subcommands; made where it is not there. */
export function commandGroup(program: Command, name: string, description: string): Command {
  const found = program.commands.find((command) => command.name() === name);
  return found ?? program.command(name).description(description);
}
