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
  const children = command.commands.map((child) => describe(child, path));
  const runsItself = command.commands.length === 0 || command.options.length > 0;
  return [...(runsItself ? [section(command, path)] : []), ...children].join("\n");
}

function section(command: Command, path: readonly string[]): string {
  const words = command.usage().replace(" [command]", "");
  const rows = [
    ...command.registeredArguments.map((argument) => [
      `\`${argument.required ? `<${argument.name()}>` : `[${argument.name()}]`}\``,
      withDefault(argument.description, argument.defaultValueDescription ?? argument.defaultValue),
    ]),
    ...command.options.filter((option) => !option.hidden).map(describeOption),
  ];
  const table = rows.length === 0 ? "" : `\n${markdownTable(["", ""], rows)}\n`;
  return `## \`${path.slice(1).join(" ")}\`\n${command.description()}\n\n\`\`\`\n${path.join(" ")} ${words}\n\`\`\`\n${table}`;
}

function describeOption(option: Option): string[] {
  const text = withDefault(option.description, option.defaultValueDescription ?? option.defaultValue);
  const choices = option.argChoices === undefined ? "" : `; one of ${option.argChoices.join(", ")}`;
  return [`\`${option.flags}\``, `${text}${choices}${option.mandatory ? "; required" : ""}`];
}

/** The default as text, where the description does not say it already. */
function withDefault(description: string, initial: unknown): string {
  const said = description.includes("(default") || (typeof initial !== "string" && typeof initial !== "number");
  return said ? description : `${description} (default: \`${initial}\`)`;
}
