/** What a service's command will run, and the selectors that name it. */
import { createHash } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  createReadStream,
  openSync,
  readSync,
  realpathSync,
  statSync,
} from "node:fs";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Issue } from "../../core/base/errors.ts";
import { scriptArgument } from "../../identity/attest/workload/unix/script.ts";
import { type MeshFile, type MeshService, reasonOf } from "./mesh-file.ts";
import type { ProcessName } from "./state.ts";

/** The program of a command, found before anything is started. */
export interface Program {
  /** What is executed: absolute. */
  readonly executable: string;
  /**
   * The file that the process will run, links resolved. Null for a shell script: it may become any other program (the shims
   * of version managers do), so only the process itself names it.
   */
  readonly path: string | null;
  /** The script an interpreter runs, links resolved. */
  readonly script: string | null;
}

/** Where services look for programs: the user's PATH, then the runtime's own folder, so that `node` is always there. */
export function searchPath(environment: NodeJS.ProcessEnv): string {
  return [environment.PATH ?? "/usr/local/bin:/usr/bin:/bin", dirname(process.execPath)].join(delimiter);
}

/** Finds the program of each service; what is missing is an issue at its place in the file. */
export function findPrograms(
  mesh: MeshFile,
  environment: NodeJS.ProcessEnv,
): { readonly programs: ReadonlyMap<string, Program>; readonly issues: readonly Issue[] } {
  const programs = new Map<string, Program>();
  const issues: Issue[] = [];
  for (const service of mesh.services) {
    const found = findProgram(service.command, mesh.dir, searchPath(environment));
    if ("fault" in found) {
      const place = mesh.document.place(["services", service.name, "command", found.argument]);
      issues.push({ code: "file-missing", severity: "error", message: found.fault, hint: found.hint, ...place });
    } else {
      programs.set(service.name, found);
    }
  }
  return { programs, issues };
}

interface Fault {
  readonly fault: string;
  readonly hint: string;
  /** Which word of the command. */
  readonly argument: number;
}

/** Options whose value names a script for a known interpreter are left to the interpreter. */
export function findProgram(command: readonly string[], dir: string, path: string): Program | Fault {
  const word = command[0] ?? "";
  const executable = word.includes("/") ? resolve(dir, word) : searchFor(word, path);
  if (executable === null) {
    const hint = "install it, or give its path (relative to the mesh's folder, with a slash)";
    return { fault: `there is no program \`${word}\` in PATH`, hint, argument: 0 };
  }
  const fault = executableFault(executable);
  if (fault !== null) {
    const hint = `the path is relative to \`${dir}\`; an executable file is needed`;
    return { fault: `\`${word}\`: ${fault}`, hint, argument: 0 };
  }
  const real = realpathSync(executable);
  const interpreter = shebang(real);
  if (interpreter !== null) {
    const program = interpreter.includes("/") ? interpreter : searchFor(interpreter, path);
    const known = program !== null && scriptArgument(basename(program), [program, real]) !== null;
    return known && !/^(ba|da|a|z|k)?sh$/.test(basename(program))
      ? { executable, path: realpathSync(program), script: real }
      : { executable, path: null, script: null };
  }
  const argument = scriptArgument(basename(real), command);
  if (argument === null) {
    return { executable, path: real, script: null };
  }
  try {
    return { executable, path: real, script: realpathSync(resolve(dir, argument)) };
  } catch (error) {
    const hint = `scripts are looked for in \`${dir}\``;
    return { fault: `\`${argument}\`: ${reasonOf(error)}`, hint, argument: command.indexOf(argument, 1) };
  }
}

function searchFor(name: string, path: string): string | null {
  for (const folder of path.split(delimiter)) {
    const candidate = join(folder === "" ? "." : folder, name);
    if (executableFault(candidate) === null) {
      return candidate;
    }
  }
  return null;
}

function executableFault(file: string): string | null {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile() ? null : "it is not a file";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES" ? "it may not be executed" : reasonOf(error);
  }
}

/** The interpreter a script names in its first line (`#!/usr/bin/env NAME` gives NAME); null where it is no script. */
function shebang(file: string): string | null {
  const head = Buffer.alloc(256);
  const fd = openSync(file, "r");
  try {
    readSync(fd, head, 0, head.length, 0);
  } finally {
    closeSync(fd);
  }
  const line = /^#!\s*(\S+)[ \t]*(\S*)/.exec(head.toString("latin1"));
  if (line === null) {
    return null;
  }
  const [, interpreter = "", argument = ""] = line;
  return basename(interpreter) === "env" && argument !== "" && !argument.startsWith("-") ? argument : interpreter;
}

/** SHA-256 of a file, hex. */
export async function sha256File(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  return hash.digest("hex");
}

/** A digest function that reads each file once: every service and sidecar runs the same interpreter. */
export function rememberDigests(
  digest: (file: string) => Promise<string> = sha256File,
): (file: string) => Promise<string> {
  const known = new Map<string, Promise<string>>();
  return (file) => {
    const found = known.get(file) ?? digest(file);
    known.set(file, found);
    return found;
  };
}

export interface SelectorSource {
  readonly uid: number;
  readonly program: Program;
  readonly process: ProcessName;
  readonly supervisor: ProcessName;
  /** The supervisor's own program. */
  readonly supervisorPath: string;
  readonly digest: (file: string) => Promise<string>;
}

/**
 * Selectors of a process we started: its user, its program, its script, its parent, and itself. All have to match, so that who
 * runs the same command elsewhere is nobody.
 */
export async function selectorsOf(source: SelectorSource): Promise<string[]> {
  const { uid, program, supervisor, supervisorPath, digest } = source;
  const selectors = [
    `unix:uid:${uid}`,
    `unix:parent:path:${supervisorPath}`,
    `unix:parent:sha256:${await digest(supervisorPath)}`,
    `unix:parent:process:${supervisor.pid}:${supervisor.startTime}`,
  ];
  if (program.path !== null) {
    selectors.push(`unix:path:${program.path}`, `unix:sha256:${await digest(program.path)}`);
  }
  if (program.script !== null) {
    selectors.push(`unix:script:${program.script}`, `unix:script:sha256:${await digest(program.script)}`);
  }
  selectors.push(`unix:process:${source.process.pid}:${source.process.startTime}`);
  return selectors;
}

/** The default selectors of a service hold for it, unless its owner gave others. */
export async function serviceSelectors(service: MeshService, source: SelectorSource): Promise<readonly string[]> {
  return service.selectors ?? selectorsOf(source);
}
