/** The command line of a shim: SPIRE's words, then its flags. */
import { CODES } from "../../core/base/codes.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { suggest } from "../../core/base/suggest.ts";
import { note, print } from "../ui.ts";
import type { Command, Commands } from "./command.ts";
import { Given, UsageError } from "./flags.ts";

/** Names of gRPC's codes, as Go prints them. */
const RPC_NAMES: Readonly<Record<number, string>> = {
  3: "InvalidArgument",
  5: "NotFound",
  6: "AlreadyExists",
  7: "PermissionDenied",
  8: "ResourceExhausted",
  9: "FailedPrecondition",
  12: "Unimplemented",
  13: "Internal",
  14: "Unavailable",
  16: "Unauthenticated",
};

/** The commands that begin with a word. */
export type Loads = Readonly<Record<string, () => Promise<Commands>>>;

async function load(loads: Loads, word: string | undefined): Promise<Commands> {
  const one = word !== undefined && Object.hasOwn(loads, word) ? loads[word] : undefined;
  if (one !== undefined) {
    return one();
  }
  const all = await Promise.all([...new Set(Object.values(loads))].map((each) => each()));
  return Object.assign({}, ...all) as Commands;
}

/** Runs a command line; the exit code is SPIRE's: 0, 1 for what failed, 127 for a command that is not there. */
export async function runShim(name: string, loads: Loads, argv: readonly string[]): Promise<number> {
  const words = argv.slice(0, argv.findIndex((word) => word.startsWith("-")) >>> 0);
  const commands = await load(loads, words[0]);
  if (argv.length === 0 || words[0] === "help" || isHelp(argv[0]) || isVersion(argv[0])) {
    print(isVersion(argv[0]) ? `everyhop's ${name}, for SPIRE's command line` : usage(name, commands));
    return argv.length === 0 ? 127 : 0;
  }
  const found = Object.keys(commands)
    .filter((path) => path.split(" ").every((word, index) => words[index] === word))
    .sort((a, b) => b.length - a.length)[0];
  const command = found === undefined ? undefined : commands[found];
  if (found === undefined || command === undefined) {
    return unknownCommand(name, commands, words);
  }
  const rest = argv.slice(found.split(" ").length);
  if (rest.some(isHelp)) {
    print(help(name, found, command));
    return 0;
  }
  try {
    await command.run(new Given(command.flags, rest));
    return Number(process.exitCode ?? 0);
  } catch (error) {
    note(failure(error));
    return 1;
  }
}

const isHelp = (word: string | undefined): boolean => /^--?(h|help)$/.test(word ?? "");
const isVersion = (word: string | undefined): boolean => /^--?version$/.test(word ?? "");

function unknownCommand(name: string, commands: Commands, words: readonly string[]): number {
  const under = Object.keys(commands).filter((path) => path.startsWith(`${words.join(" ")} `));
  if (under.length > 0) {
    print(
      usage(`${name} ${words.join(" ")}`, Object.fromEntries(under.map((path) => [path, commands[path] as Command]))),
    );
    return 127;
  }
  const near = suggest(words.slice(0, 3).join(" "), Object.keys(commands));
  note(`Error: unknown command \`${name} ${words.join(" ")}\`${near === null ? "" : `; did you mean \`${near}\`?`}`);
  return 127;
}

function failure(error: unknown): string {
  if (error instanceof UsageError) {
    return `Error: ${error.message}`;
  }
  if (!(error instanceof EveryhopError)) {
    return `Error: ${error instanceof Error ? error.message : String(error)}`;
  }
  const code = RPC_NAMES[CODES[error.code].grpc] ?? "Unknown";
  const local = ["usage", "config-invalid", "file-missing", "storage-failed"].includes(error.code);
  const hint = error.hint === undefined ? "" : `\n  hint: ${error.hint}`;
  return `Error: ${local ? "" : `rpc error: code = ${code} desc = `}${error.message}${hint}`;
}

function usage(name: string, commands: Commands): string {
  const rows = Object.entries(commands).map(([path, { synopsis }]) => `    ${path.padEnd(34)}${synopsis}`);
  return `Usage: ${name} <command> [flags]: SPIRE's command line for everyhop\n\nCommands:\n${rows.join("\n")}`;
}

function help(name: string, path: string, { synopsis, flags }: Command): string {
  const rows = Object.entries(flags).map(
    ([flag, { kind, what }]) => `  -${flag}${kind === "flag" ? "" : " value"}\n    \t${what}`,
  );
  return `${synopsis}\n\nUsage of ${name} ${path}:\n${rows.join("\n")}`;
}
