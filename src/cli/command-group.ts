import type { Command } from "commander";

/** The command `name` of the program, under which several modules put their subcommands; made where it is not there. */
export function commandGroup(program: Command, name: string, description: string): Command {
  const found = program.commands.find((command) => command.name() === name);
  const group = found ?? program.command(name).description(description);
  // What stands after a subcommand is the subcommand's, also where the group itself has an option of that name.
  return group.enablePositionalOptions();
}
