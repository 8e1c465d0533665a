import type { Command } from "commander";
import type { KillDocument } from "../core/api/admin.ts";
import { askAdmin } from "./ask-admin.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { killText } from "./status-text.ts";
import { print, printJson } from "./ui.ts";

type Options = MeshOptions & { readonly json?: boolean; readonly force?: boolean };

/** `everyhop kill` and `restore`. Exit code 1 where not every sidecar has confirmed. */
export function define(program: Command): void {
  addMeshOptions(program.command("kill"))
    .description("cut an identity off everywhere: connections closed, new ones refused, no new certificate")
    .argument("<spiffe-id>")
    .option("--force", "also where nothing in the mesh is known by that identity")
    .option("--json", "one JSON document")
    .action(async (spiffeId: string, options: Options) => {
      const force = options.force === true;
      const document = await askAdmin<KillDocument>(options, (admin) => admin.kill({ spiffeId, force }));
      report(document, options, false);
    });
  addMeshOptions(program.command("restore"))
    .description("undo a kill")
    .argument("<spiffe-id>")
    .option("--json", "one JSON document")
    .action(async (spiffeId: string, options: Options) => {
      report(await askAdmin<KillDocument>(options, (admin) => admin.restore({ spiffeId })), options, true);
    });
}

function report(document: KillDocument, options: Options, undone: boolean): void {
  if (options.json === true) {
    printJson(document);
  } else {
    print(killText(document, undone));
  }
  process.exitCode = document.confirmed === document.total ? 0 : 1;
}
