import { resolve } from "node:path";
import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { readPlace, runIn } from "../run/up/exec.ts";
import { enterRoom } from "../run/up/isolate/enter.ts";
import { findMesh } from "./find-mesh.ts";

export function define(program: Command): void {
  program
    .command("exec")
    .description("run a command where a service runs: its environment, its agent socket, its namespace and user")
    .argument("<service>", "a service of the mesh")
    .argument("<command...>", "the command, after `--`")
    .option("--dir <dir>", "folder of the mesh (default: the current folder)")
    .addHelpText("after", "\nExample:\n  everyhop exec printer --dir examples/payments -- env")
    .action(async (service: string, command: string[], flags: { readonly dir?: string }) => {
      process.exitCode = await exec(service, command, flags.dir ?? ".");
    });
}

async function exec(service: string, command: readonly string[], dir: string): Promise<number> {
  if (command.length === 0) {
    throw new EveryhopError("usage", "no command is given", { hint: "everyhop exec SERVICE -- COMMAND" });
  }
  const mesh = findMesh({ dir: resolve(dir) });
  const place = readPlace(mesh.stateDir, service);
  if (place.isolated !== null && process.getuid?.() !== 0) {
    throw new EveryhopError("permission-denied", "this mesh is isolated: entering a service's namespace needs root", {
      hint: "run the command with sudo",
    });
  }
  return runIn(place, command, (isolated) => (isolated.isolated === null ? [] : enterRoom(isolated)));
}
