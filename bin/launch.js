// The launcher: plain JavaScript that any Node >= 18 can start. It finds a runtime of Node >= 24 (the one that runs
// it, or the one `npm ci` brought as a dependency), re-executes on it, and otherwise says clearly what to do.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const NEEDED_MAJOR = 24;
let command = "everyhop";
let entry = "";
const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The pinned runtime's path, or null where this platform has none. */
function pinnedRuntime() {
  try {
    const require = createRequire(import.meta.url);
    const packageJson = require.resolve(`node-${process.platform}-${process.arch}/package.json`);
    const binary = join(dirname(packageJson), "bin", process.platform === "win32" ? "node.exe" : "node");
    return existsSync(binary) ? binary : null;
  } catch {
    return null;
  }
}

function fail(message, hint) {
  process.stderr.write(`${command}: ${message}\n  hint: ${hint}\n`);
  process.exit(2);
}

/** Becomes the CLI on `binary`: in place where Node can (>= 22.15), else as a child whose exit is ours. */
function runOn(binary) {
  const args = [binary, entry, ...process.argv.slice(2)];
  if (process.execve !== undefined && process.platform !== "win32") {
    process.execve(binary, args, process.env);
  }
  const child = spawn(binary, args.slice(1), {
    stdio: "inherit",
    env: { ...process.env, EVERYHOP_LAUNCHER: String(process.pid) },
  });
  // A terminal's Ctrl-C reaches the child by itself; a signal sent to us alone has to be handed on.
  process.on("SIGINT", () => process.stdin.isTTY || child.kill("SIGINT"));
  for (const signal of ["SIGTERM", "SIGHUP"]) {
    process.on(signal, () => child.kill(signal));
  }
  child.on("error", (error) => fail(`cannot start the runtime \`${binary}\`: ${error.message}`, "run `npm ci` again"));
  child.on("exit", (code, signal) => {
    if (signal === null) {
      process.exit(code ?? 1);
    }
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** Runs `module` (below src, without its ending) under the name `name`. */
export async function launch(name, module) {
  command = name;
  const source = join(root, "src", `${module}.ts`);
  entry = existsSync(source) ? source : join(root, "dist/src", `${module}.js`);
  if (!existsSync(join(root, "node_modules")) && !root.includes("node_modules")) {
    fail("its dependencies are not installed", `run \`npm ci\` in ${root}`);
  }
  const major = Number(process.versions.node.split(".")[0]);
  const pinned = pinnedRuntime();
  if (major >= NEEDED_MAJOR) {
    await import(`file://${entry}`);
  } else if (pinned !== null) {
    runOn(pinned);
  } else {
    fail(
      `it needs Node ${NEEDED_MAJOR} or later; this is ${process.versions.node}, and no pinned runtime is installed`,
      `run \`npm ci\` without omitting optional dependencies, or install Node ${NEEDED_MAJOR} and run it again`,
    );
  }
}
