/** docs/cli.md: every command with its arguments and options, as `--help` has them. */
import type { Command, Option } from "commander";
import { allCommands, makeProgram } from "../src/cli/commands.ts";
import { markdownTable } from "./markdown.ts";

export async function cliDocument(): Promise<string> {
  const program = await makeProgram(allCommands());
  const commands = program.commands.toSorted((a, b) => a.name().localeCompare(b.name()));
  return `# Commands

In a checkout the command is \`bin/everyhop.js\`, installed it is \`everyhop\`. With \`--json\` a command prints one JSON document (or
JSON lines where a stream is natural) on standard output and nothing else; progress and diagnostics go to standard error. Exit codes are
in [errors.md](errors.md), the documents in [json.md](json.md).

${commands.map((command) => describe(command, ["everyhop"])).join("\n")}`;
}

function describe(command: Command, parents: readonly string[]): string {
  const path = [...parents, command.name()];
  if (command.commands.length > 0) {
    return command.commands.map((child) => describe(child, path)).join("\n");
  }
  const usage = `${path.join(" ")} ${command.usage()}`.trim();
  const rows = [
    ...command.registeredArguments.map((argument) => [
      `\`${argument.required ? `<${argument.name()}>` : `[${argument.name()}]`}\``,
      sentence(argument.description, argument.defaultValueDescription ?? argument.defaultValue),
    ]),
    ...command.options.filter((option) => !option.hidden).map(describeOption),
  ];
  const table = rows.length === 0 ? "" : `\n${markdownTable(["", ""], rows)}\n`;
  return `## \`${path.slice(1).join(" ")}\`\n${command.description()}\n\n\`\`\`\n${usage}\n\`\`\`\n${table}`;
}

function describeOption(option: Option): string[] {
  const choices = option.argChoices === undefined ? "" : ` One of ${option.argChoices.join(", ")}.`;
  const needed = option.mandatory ? " Required." : "";
  return [
    `\`${option.flags}\``,
    `${sentence(option.description, option.defaultValueDescription ?? option.defaultValue)}${choices}${needed}`,
  ];
}

function sentence(description: string, initial: unknown): string {
  const shown = initial === undefined || initial === false || (Array.isArray(initial) && initial.length === 0);
  return shown ? description : `${description} (default: \`${initial}\`)`;
}
