import type { Command } from "commander";
import type { StatusDocument } from "../core/api/admin.ts";
import { askAdmin } from "./ask-admin.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { statusText } from "./status-text.ts";
import { print, printJson } from "./ui.ts";

/** `everyhop status`: the state of a running mesh at one glance. */
export function define(program: Command): void {
  addMeshOptions(program.command("status"))
    .description("identities, sidecars, policies and the last denials of the running mesh")
    .option("--json", "one JSON document")
    .action(async (options: MeshOptions & { json?: boolean }) => {
      const status = await askAdmin<StatusDocument>(options, (admin) => admin.status({}));
      if (options.json === true) {
        printJson(status);
      } else {
        print(statusText(status, Date.now()));
      }
    });
}
