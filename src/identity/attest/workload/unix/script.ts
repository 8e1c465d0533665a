/** The script an interpreter runs, as its command line says. A process can rewrite its command line: see unix.ts. */
import { realpath } from "node:fs/promises";
import { resolve } from "node:path";
import {
  type FileIdentity,
  fileIdentity,
  processArguments,
  processDirectory,
  sameFile,
} from "../../../../io/process.ts";

interface Interpreter {
  readonly names: RegExp;
  /** Options whose value is the next argument. */
  readonly withValue: ReadonlySet<string>;
  /** Options after which there is no script file: code in the arguments, a module, standard input. */
  readonly noScript: ReadonlySet<string>;
  /** Letters of `noScript` inside a cluster of short options (`-lc`). */
  readonly noScriptLetters: string;
  /** The option whose value is the script. */
  readonly scriptOption?: string;
}

const set = (words: string): ReadonlySet<string> => new Set(words.split(" "));

const INTERPRETERS: readonly Interpreter[] = [
  {
    names: /^(node|nodejs)$/,
    withValue: set(
      "-r --require --import --loader --experimental-loader -C --conditions --env-file --env-file-if-exists --title " +
        "--input-type --icu-data-dir --openssl-config --diagnostic-dir --disable-warning --stack-trace-limit",
    ),
    noScript: set("-e --eval -p --print -pe -i --interactive --test --run -"),
    noScriptLetters: "",
  },
  {
    names: /^(python|pypy)[0-9.]*$/,
    withValue: set("-W -X --check-hash-based-pycs"),
    noScript: set("-c -m -"),
    noScriptLetters: "cm",
  },
  {
    names: /^(bash|sh|dash|ash|zsh|ksh)$/,
    withValue: set("-o +o -O +O --rcfile --init-file"),
    noScript: set("-c -s -"),
    noScriptLetters: "cs",
  },
  { names: /^ruby[0-9.]*$/, withValue: set("-I -r -C -E -S"), noScript: set("-e -"), noScriptLetters: "e" },
  { names: /^perl[0-9.]*$/, withValue: set("-I -M -m"), noScript: set("-e -E -"), noScriptLetters: "eE" },
  {
    names: /^java$/,
    withValue: set(
      "-cp -classpath --class-path -p --module-path --add-modules --add-opens --add-exports --add-reads --upgrade-module-path",
    ),
    noScript: set("-m --module"),
    noScriptLetters: "",
    scriptOption: "-jar",
  },
];

/** The argument that names the script, for a program called `name` (`args[0]` is the program); null where there is none. */
export function scriptArgument(name: string, args: readonly string[]): string | null {
  const interpreter = INTERPRETERS.find(({ names }) => names.test(name));
  if (interpreter === undefined) {
    return null;
  }
  for (let index = 1; index < args.length; index++) {
    const argument = args[index] as string;
    if (argument === "--" || argument === interpreter.scriptOption) {
      return args[index + 1] ?? null;
    }
    if (interpreter.noScript.has(argument)) {
      return null;
    }
    if (interpreter.withValue.has(argument)) {
      index += 1;
    } else if (/^-[A-Za-z]/.test(argument)) {
      if ([...argument.slice(1)].some((letter) => interpreter.noScriptLetters.includes(letter))) {
        return null;
      }
    } else if (!/^[-+]/.test(argument)) {
      return argument === "" ? null : argument;
    }
  }
  return null;
}

export interface Script {
  /** Absolute: as given, and with links resolved where that differs. */
  readonly paths: readonly string[];
  /** Where to read it. */
  readonly file: string;
  readonly identity: FileIdentity;
}

/** The script that process `pid`, running a program called `name`, shows; null where there is none or we may not know. */
export async function findScript(pid: number, name: string): Promise<Script | null> {
  const args = await processArguments(pid);
  const argument = args === null ? null : scriptArgument(name, args);
  const directory = await processDirectory(pid);
  if (argument === null || directory === null) {
    return null;
  }
  const path = resolve(directory, argument);
  const real = await realpath(path).catch(() => null);
  if (real === null) {
    return null;
  }
  // In a mount namespace of its own the process may see another file under this name.
  const [here, there] = await Promise.all([fileIdentity(real), fileIdentity(`/proc/${pid}/root${real}`)]);
  if (here === null || there === null || !sameFile(here, there)) {
    return null;
  }
  return { paths: real === path ? [path] : [path, real], file: real, identity: here };
}
