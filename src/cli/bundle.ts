import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { formatBundle, type Bundle as Value } from "../core/spiffe/bundle.ts";
import { certificatesToPem } from "../core/x509/pem.ts";
import { Bundle, BatchDeleteFederatedBundleRequest_Mode as Mode } from "../gen/spire/api/server/bundle/v1/bundle_pb.js";
import type { Bundle as Message } from "../gen/spire/api/types/bundle_pb.js";
import { each, oneOf, trustDomain } from "./arguments.ts";
import { askServer, itemError } from "./ask-server.ts";
import { bundleMessage, bundleOf, FORMATS, type Format, readBundleFile } from "./bundle-file.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { note, print, printJson } from "./ui.ts";

const MODES = { restrict: Mode.RESTRICT, dissociate: Mode.DISSOCIATE, delete: Mode.DELETE };

interface ShowOptions extends MeshOptions {
  readonly format?: Format;
  readonly id?: string;
  readonly json?: boolean;
}

export function define(program: Command): void {
  const bundle = program.command("bundle").description("trust bundles: the keys that trust domains are believed by");
  const formats = "pem (X.509 alone) or spiffe (JSON with JWT keys)";
  addMeshOptions(bundle.command("show"))
    .description("the mesh's own bundle")
    .option("--format <format>", `${formats} (default pem)`, oneOf(FORMATS))
    .option("--json", "in SPIFFE's JSON")
    .addHelpText("after", "\nExamples:\n  everyhop bundle show > bundle.pem\n  everyhop bundle show --format spiffe")
    .action(show);
  addMeshOptions(bundle.command("list"))
    .description("bundles of other trust domains")
    .option("--id <trust domain>", "only this one", trustDomain)
    .option("--format <format>", `${formats} (default pem)`, oneOf(FORMATS))
    .option("--json", "in SPIFFE's JSON, by trust domain")
    .addHelpText("after", "\nExample:\n  everyhop bundle list --id other.org --format spiffe")
    .action(listBundles);
  addMeshOptions(bundle.command("set"))
    .description("make or replace the bundle of another trust domain")
    .requiredOption("--id <trust domain>", "whose", trustDomain)
    .option("--path <file>", "where it is (default: standard input)")
    .option("--format <format>", `${formats} (default pem)`, oneOf(FORMATS))
    .option("--json", "what was set as JSON")
    .addHelpText("after", "\nExample:\n  everyhop bundle set --id other.org --path other.json --format spiffe")
    .action(set);
  addMeshOptions(bundle.command("delete"))
    .description("forget the bundle of another trust domain")
    .requiredOption("--id <trust domain>", "whose; may be given several times", each(trustDomain))
    .option("--mode <mode>", "restrict, dissociate or delete entries that federate", oneOf(MODES), Mode.RESTRICT)
    .option("--json", "what was deleted as JSON")
    .addHelpText("after", "\nExample:\n  everyhop bundle delete --id other.org --mode dissociate")
    .action(remove);
}

function textOf(value: Value, format: Format): string {
  return (format === "spiffe" ? formatBundle(value) : certificatesToPem(value.x509Authorities)).trimEnd();
}

async function show({ format, json, ...options }: ShowOptions): Promise<void> {
  const value = bundleOf(await askServer(options, Bundle, (bundles) => bundles.getBundle({})));
  print(json === true ? oneLine(formatBundle(value)) : textOf(value, format ?? "pem"));
}

/** Not parsed: a sequence number may be larger than a JavaScript number. */
function oneLine(json: string): string {
  return json.replace(/\n\s*/g, "");
}

const PAGE_SIZE = 100;

async function listBundles({ format, json, id, ...options }: ShowOptions): Promise<void> {
  const bundles = await askServer(options, Bundle, async (client) => {
    if (id !== undefined) {
      return [await client.getFederatedBundle({ trustDomain: id })];
    }
    const all: Message[] = [];
    let pageToken = "";
    do {
      const page = await client.listFederatedBundles({ pageSize: PAGE_SIZE, pageToken });
      all.push(...page.bundles);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return all;
  });
  const values = bundles.map(bundleOf);
  if (json === true) {
    const entries = values.map((value) => `${JSON.stringify(value.trustDomain)}:${oneLine(formatBundle(value))}`);
    print(`{"trust_domains":{${entries.join(",")}}}`);
    return;
  }
  if (values.length === 0) {
    note("No bundle of another trust domain is set.");
  }
  for (const value of values) {
    note(`* ${value.trustDomain}`);
    print(textOf(value, format ?? "pem"));
  }
}

interface SetOptions extends ShowOptions {
  readonly id: string;
  readonly path?: string;
}

async function set({ id, path, format, json, ...options }: SetOptions): Promise<void> {
  const value = readBundleFile(id, path, format);
  const { results } = await askServer(options, Bundle, (bundles) =>
    bundles.batchSetFederatedBundle({ bundle: [bundleMessage(value)] }),
  );
  const error = itemError(results[0]?.status);
  if (error !== null) {
    throw error;
  }
  if (json === true) {
    printJson({
      trustDomain: id,
      x509Authorities: value.x509Authorities.length,
      jwtAuthorities: value.jwtAuthorities.length,
    });
  } else {
    print("bundle set.");
  }
}

interface RemoveOptions extends MeshOptions {
  readonly id: string[];
  readonly mode: Mode;
  readonly json?: boolean;
}

async function remove({ id, mode, json, ...options }: RemoveOptions): Promise<void> {
  const { results } = await askServer(options, Bundle, (bundles) =>
    bundles.batchDeleteFederatedBundle({ trustDomains: id, mode }),
  );
  for (const { trustDomain: name, status } of results) {
    const error = itemError(status);
    if (error !== null) {
      throw new EveryhopError(error.code, `\`${name}\`: ${error.message}`, {
        hint: error.hint ?? "`everyhop bundle list` shows those that are set",
      });
    }
    if (json !== true) {
      print(`bundle of ${name} deleted.`);
    }
  }
  if (json === true) {
    printJson({ deleted: id });
  }
}
