import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { formatBundle } from "../core/spiffe/bundle.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { TrustDomain } from "../gen/spire/api/server/trustdomain/v1/trustdomain_pb.js";
import type { FederationRelationship as Message } from "../gen/spire/api/types/federationrelationship_pb.js";
import { oneOf, spiffeId, trustDomain } from "./arguments.ts";
import { askServer, itemError } from "./ask-server.ts";
import { bundleMessage, bundleOf, FORMATS, type Format, readBundleFile } from "./bundle-file.ts";
import { type Draft, profileOf, readRelationships } from "./federation-file.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { note, print, printJson } from "./ui.ts";

const PROFILES = { https_web: "https_web", https_spiffe: "https_spiffe" } as const;
type Profile = keyof typeof PROFILES;

interface FieldOptions extends MeshOptions {
  readonly data?: string;
  readonly trustDomain?: string;
  readonly bundleEndpointUrl?: string;
  readonly bundleEndpointProfile?: Profile;
  readonly endpointSpiffeId?: SpiffeId;
  readonly trustDomainBundlePath?: string;
  readonly trustDomainBundleFormat?: Format;
  readonly json?: boolean;
}

interface NamedOptions extends MeshOptions {
  readonly trustDomain?: string;
  readonly id?: string;
  readonly json?: boolean;
}

export function define(program: Command): void {
  const federation = program
    .command("federation")
    .description("trust domains whose bundles are followed; those of the configuration file are not among them");
  const example = (verb: string): string => `
Examples:
  everyhop federation ${verb} --trust-domain partner.org --bundle-endpoint-url https://bundles.partner.org:8443/ \\
    --bundle-endpoint-profile https_spiffe --endpoint-spiffe-id spiffe://partner.org/spire/server \\
    --trust-domain-bundle-path partner.json --trust-domain-bundle-format spiffe
  everyhop federation ${verb} --data relationships.json`;
  withFields(federation.command("create"))
    .description("follow another trust domain's bundle endpoint")
    .addHelpText("after", example("create"))
    .action((options: FieldOptions) => write("create", options));
  withFields(federation.command("update"))
    .description("change where and how a bundle endpoint is followed")
    .addHelpText("after", example("update"))
    .action((options: FieldOptions) => write("update", options));
  addMeshOptions(federation.command("list"))
    .description("the relationships that were created")
    .option("--json", "as JSON")
    .addHelpText("after", "\nExample:\n  everyhop federation list --json")
    .action(list);
  named(federation.command("show"), "show", "show a relationship").action(show);
  named(federation.command("delete"), "delete", "follow it no more; its bundle stays until it is deleted").action(
    remove,
  );
  named(federation.command("refresh"), "refresh", "ask its endpoint now").action(refresh);
}

function withFields(command: Command): Command {
  const formats = "pem (X.509 alone) or spiffe (JSON with JWT keys); default pem";
  return addMeshOptions(command)
    .option("--data <file>", "relationships as JSON in SPIRE's form; - is standard input")
    .option("--trust-domain <name>", "whose bundle", trustDomain)
    .option("--bundle-endpoint-url <url>", "where it is served, by https")
    .option("--bundle-endpoint-profile <profile>", "https_web or https_spiffe", oneOf(PROFILES))
    .option("--endpoint-spiffe-id <id>", "https_spiffe: who serves it", spiffeId)
    .option("--trust-domain-bundle-path <file>", "the first bundle")
    .option("--trust-domain-bundle-format <format>", formats, oneOf(FORMATS))
    .option("--json", "the relationship as JSON");
}

function named(command: Command, name: string, description: string): Command {
  return addMeshOptions(command)
    .description(description)
    .option("--trust-domain <name>", "whose", trustDomain)
    .option("--id <name>", "the same, in SPIRE's word", trustDomain)
    .option("--json", "as JSON")
    .addHelpText("after", `\nExample:\n  everyhop federation ${name} --trust-domain partner.org`);
}

function usage(message: string): EveryhopError {
  return new EveryhopError("usage", message, { hint: "`everyhop federation create --help` has examples" });
}

function draftOf(options: FieldOptions): Draft {
  const { bundleEndpointUrl, bundleEndpointProfile, endpointSpiffeId, trustDomain: name } = options;
  if (name === undefined || bundleEndpointUrl === undefined || bundleEndpointProfile === undefined) {
    throw usage("a relationship needs `--trust-domain`, `--bundle-endpoint-url` and `--bundle-endpoint-profile`");
  }
  if ((bundleEndpointProfile === "https_spiffe") !== (endpointSpiffeId !== undefined)) {
    throw usage("`--endpoint-spiffe-id` goes with the profile `https_spiffe`, and only with it");
  }
  const { trustDomainBundlePath: path, trustDomainBundleFormat: format } = options;
  return {
    trustDomain: name,
    bundleEndpointUrl,
    bundleEndpointProfile: profileOf(endpointSpiffeId),
    ...(path === undefined ? {} : { trustDomainBundle: bundleMessage(readBundleFile(name, path, format)) }),
  };
}

interface Result {
  readonly status?: { readonly code: number; readonly message: string } | undefined;
  readonly federationRelationship?: Message | undefined;
}

async function write(verb: "create" | "update", options: FieldOptions): Promise<void> {
  const drafts = options.data === undefined ? [draftOf(options)] : readRelationships(options.data);
  const request = { federationRelationships: [...drafts] };
  const results = await askServer(options, TrustDomain, async (client): Promise<readonly Result[]> => {
    const { results } =
      verb === "create"
        ? await client.batchCreateFederationRelationship(request)
        : await client.batchUpdateFederationRelationship(request);
    return results;
  });
  const done: Message[] = [];
  for (const [index, { status, federationRelationship }] of results.entries()) {
    const error = itemError(status);
    if (error !== null) {
      throw new EveryhopError(error.code, `\`${drafts[index]?.trustDomain}\`: ${error.message}`, {
        hint: error.hint ?? "`everyhop federation list` shows those that are there",
      });
    }
    if (federationRelationship !== undefined) {
      done.push(federationRelationship);
    }
  }
  if (options.json === true) {
    const documents = done.map(documentOf);
    printJson(options.data === undefined ? documents[0] : { federationRelationships: documents });
  } else {
    done.forEach(printRelationship);
  }
}

const PAGE_SIZE = 100;

async function list(options: MeshOptions & { readonly json?: boolean }): Promise<void> {
  const all = await askServer(options, TrustDomain, async (client) => {
    const found: Message[] = [];
    let pageToken = "";
    do {
      const page = await client.listFederationRelationships({ pageSize: PAGE_SIZE, pageToken });
      found.push(...page.federationRelationships);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return found;
  });
  if (options.json === true) {
    printJson({ federationRelationships: all.map(documentOf) });
    return;
  }
  note(`Found ${all.length} federation relationship${all.length === 1 ? "" : "s"}`);
  all.forEach(printRelationship);
}

function nameOf({ trustDomain: name, id }: NamedOptions): string {
  const given = name ?? id;
  if (given === undefined) {
    throw new EveryhopError("usage", "`--trust-domain` is needed", { hint: "`everyhop federation list` shows them" });
  }
  return given;
}

async function show(options: NamedOptions): Promise<void> {
  const { json } = options;
  const name = nameOf(options);
  const found = await askServer(options, TrustDomain, (client) =>
    client.getFederationRelationship({ trustDomain: name }),
  );
  if (json === true) {
    printJson(documentOf(found));
    return;
  }
  printRelationship(found);
  if (found.trustDomainBundle !== undefined) {
    print(`Bundle                    :\n${formatBundle(bundleOf(found.trustDomainBundle))}`);
  }
}

async function remove(options: NamedOptions): Promise<void> {
  const { json } = options;
  const name = nameOf(options);
  const { results } = await askServer(options, TrustDomain, (client) =>
    client.batchDeleteFederationRelationship({ trustDomains: [name] }),
  );
  const error = itemError(results[0]?.status);
  if (error !== null) {
    throw error;
  }
  if (json === true) {
    printJson({ deleted: [name] });
  } else {
    print(`federation relationship with ${name} deleted.`);
  }
}

async function refresh(options: NamedOptions): Promise<void> {
  const { json } = options;
  const name = nameOf(options);
  await askServer(options, TrustDomain, (client) =>
    client.refreshBundle({ trustDomain: name }, { deadlineMs: REFRESH_DEADLINE_MS }),
  );
  if (json === true) {
    printJson({ refreshed: name });
  } else {
    print(`bundle of ${name} refreshed.`);
  }
}

/** Longer than the server waits for an endpoint, redirects included. */
const REFRESH_DEADLINE_MS = 45_000;

function documentOf({ trustDomain: name, bundleEndpointUrl, bundleEndpointProfile, trustDomainBundle }: Message) {
  const spiffe = bundleEndpointProfile.case === "httpsSpiffe" ? bundleEndpointProfile.value : null;
  return {
    trustDomain: name,
    bundleEndpointUrl,
    bundleEndpointProfile: spiffe === null ? "https_web" : "https_spiffe",
    ...(spiffe === null ? {} : { endpointSpiffeId: spiffe.endpointSpiffeId }),
    bundleSequence: trustDomainBundle === undefined ? null : trustDomainBundle.sequenceNumber.toString(),
  };
}

function printRelationship(message: Message): void {
  const { endpointSpiffeId, ...document } = documentOf(message);
  print(`Trust domain              : ${document.trustDomain}`);
  print(`Bundle endpoint URL       : ${document.bundleEndpointUrl}`);
  print(`Bundle endpoint profile   : ${document.bundleEndpointProfile}`);
  if (endpointSpiffeId !== undefined) {
    print(`Endpoint SPIFFE ID        : ${endpointSpiffeId}`);
  }
  if (document.bundleSequence === null) {
    note("No bundle of it is stored yet.");
  }
}
