import type { Command } from "commander";
import type { WhyDocument } from "../core/api/admin.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { askAdmin } from "./ask-admin.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { whyText } from "./status-text.ts";
import { print, printJson, reportFailure } from "./ui.ts";

/** `everyhop why ID`: explains one denial. An id that is not known is the answer "no": exit code 1. */
export function define(program: Command): void {
  addMeshOptions(program.command("why"))
    .description("explain a denial: who, what, which rule, and what would have been allowed")
    .argument("<id>", "the `x-everyhop-denial` header of the answer, or an id of `everyhop status`")
    .option("--json", "one JSON document")
    .action(async (id: string, options: MeshOptions & { json?: boolean }) => {
      try {
        const denial = await askAdmin<WhyDocument>(options, (admin) => admin.why({ id }));
        if (options.json === true) {
          printJson(denial);
        } else {
          print(whyText(denial));
        }
      } catch (error) {
        if (!(error instanceof EveryhopError && error.code === "not-found")) {
          throw error;
        }
        reportFailure(error, options.json === true);
        process.exitCode = 1;
      }
    });
}
