/** `spire-server federation create|update|list|show|delete|refresh`. */
import { create } from "@bufbuild/protobuf";
import {
  BatchCreateFederationRelationshipResponseSchema,
  BatchDeleteFederationRelationshipResponseSchema,
  BatchUpdateFederationRelationshipResponseSchema,
  ListFederationRelationshipsResponseSchema,
  TrustDomain,
} from "../../gen/spire/api/server/trustdomain/v1/trustdomain_pb.js";
import {
  type FederationRelationship,
  FederationRelationshipSchema,
} from "../../gen/spire/api/types/federationrelationship_pb.js";
import { type Status, StatusSchema } from "../../gen/spire/api/types/status_pb.js";
import { bundleMessage, readBundleFile } from "../bundle-file.ts";
import { type Draft, profileOf, readRelationships } from "../federation-file.ts";
import { note, print } from "../ui.ts";
import { readDomain, readFormat } from "./bundle.ts";
import { answer, ask, type Commands, pages, plural, required, serverCommand } from "./command.ts";
import { statusText } from "./entry.ts";
import { type Flags, type Given, text, UsageError } from "./flags.ts";

const FIELDS: Flags = {
  data: text("Path to a file with federation relationships in JSON (optional). If set to '-', read from stdin."),
  trustDomain: text("Name of the trust domain to federate with (e.g., example.org)"),
  bundleEndpointURL: text("URL of the SPIFFE bundle endpoint that provides the trust bundle (HTTPS)"),
  bundleEndpointProfile: text('Endpoint profile type (either "https_web" or "https_spiffe")'),
  endpointSpiffeID: text("SPIFFE ID of the SPIFFE bundle endpoint server. Only used for 'spiffe' profile."),
  trustDomainBundlePath: text("Path to the trust domain bundle data (optional)."),
  trustDomainBundleFormat: text('The format of the bundle data (optional). Either "pem" or "spiffe".'),
};

function drafts(given: Given): readonly Draft[] {
  const data = given.text("data");
  if (data !== "") {
    if (Object.keys(FIELDS).some((name) => name !== "data" && given.has(name))) {
      throw new UsageError("cannot use other flags to specify relationship fields when 'data' flag is set");
    }
    return readRelationships(data);
  }
  const trustDomain = readDomain(required(given, "trustDomain", "trust domain is required"));
  const bundleEndpointUrl = required(given, "bundleEndpointURL", "bundle endpoint URL is required");
  const profile = given.text("bundleEndpointProfile");
  if (profile !== "https_web" && profile !== "https_spiffe") {
    throw new UsageError(`unknown bundle endpoint profile type: "${profile}"`);
  }
  const missing = "endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set";
  const endpoint = profile === "https_spiffe" ? required(given, "endpointSpiffeID", missing) : undefined;
  const path = given.text("trustDomainBundlePath");
  const bundle = () => bundleMessage(readBundleFile(trustDomain, path, readFormat(given, "trustDomainBundleFormat")));
  return [
    {
      trustDomain,
      bundleEndpointUrl,
      bundleEndpointProfile: profileOf(endpoint),
      ...(path === "" ? {} : { trustDomainBundle: bundle() }),
    },
  ];
}

function relationshipText(
  one: Pick<FederationRelationship, "trustDomain" | "bundleEndpointUrl" | "bundleEndpointProfile">,
): string {
  const { case: profile, value } = one.bundleEndpointProfile;
  const rows: [string, string][] = [
    ["Trust domain", one.trustDomain],
    ["Bundle endpoint URL", one.bundleEndpointUrl],
    ["Bundle endpoint profile", profile === "httpsSpiffe" ? "https_spiffe" : "https_web"],
  ];
  if (profile === "httpsSpiffe") {
    rows.push(["Endpoint SPIFFE ID", value.endpointSpiffeId]);
  }
  return rows.map(([name, shown]) => `${name.padEnd(25)} : ${shown}`).join("\n");
}

interface Result {
  readonly status?: Status | undefined;
  readonly federationRelationship?: FederationRelationship | undefined;
}

function showResults(results: readonly Result[], asked: readonly Draft[], verb: string): void {
  let failed = 0;
  results.forEach(({ status, federationRelationship }, index) => {
    if (status?.code === 0 && federationRelationship !== undefined) {
      print(`\n${relationshipText(federationRelationship)}`);
      return;
    }
    failed++;
    note(`\nFailed to ${verb} the following federation relationship (${statusText(status)}):`);
    note(relationshipText(create(FederationRelationshipSchema, asked[index] ?? {})));
  });
  if (failed > 0) {
    throw new UsageError(`failed to ${verb} one or more federation relationships`);
  }
}

async function createRelationships(given: Given): Promise<void> {
  const asked = drafts(given);
  const request = { federationRelationships: [...asked] };
  const response = await ask(given, TrustDomain, (client) => client.batchCreateFederationRelationship(request));
  answer(given, BatchCreateFederationRelationshipResponseSchema, response, ({ results }) =>
    showResults(results, asked, "create"),
  );
}

async function updateRelationships(given: Given): Promise<void> {
  const asked = drafts(given);
  const request = { federationRelationships: [...asked] };
  const response = await ask(given, TrustDomain, (client) => client.batchUpdateFederationRelationship(request));
  answer(given, BatchUpdateFederationRelationshipResponseSchema, response, ({ results }) =>
    showResults(results, asked, "update"),
  );
}

async function listRelationships(given: Given): Promise<void> {
  const federationRelationships = await ask(given, TrustDomain, (client) =>
    pages(
      (pageToken) => client.listFederationRelationships({ pageSize: 100, pageToken }),
      (page) => page.federationRelationships,
    ),
  );
  const response = create(ListFederationRelationshipsResponseSchema, { federationRelationships });
  answer(given, ListFederationRelationshipsResponseSchema, response, () => {
    print(`Found ${plural(federationRelationships.length, "federation relationship")}`);
    for (const one of federationRelationships) {
      print(`\n${relationshipText(one)}`);
    }
  });
}

async function showRelationship(given: Given): Promise<void> {
  const trustDomain = readDomain(required(given, "trustDomain", "a trust domain name is required"));
  const found = await ask(given, TrustDomain, (client) => client.getFederationRelationship({ trustDomain }));
  answer(given, FederationRelationshipSchema, found, () => {
    print(`Found a federation relationship with trust domain ${trustDomain}:\n\n${relationshipText(found)}`);
  });
}

async function deleteRelationship(given: Given): Promise<void> {
  const trustDomain = readDomain(required(given, "id", "id is required"));
  const response = await ask(given, TrustDomain, (client) =>
    client.batchDeleteFederationRelationship({ trustDomains: [trustDomain] }),
  );
  answer(given, BatchDeleteFederationRelationshipResponseSchema, response, ({ results: [result] }) => {
    if (result?.status?.code !== 0) {
      const message = result?.status?.message ?? "no answer";
      throw new UsageError(`failed to delete federation relationship "${trustDomain}": ${message}`);
    }
    print("federation relationship deleted.");
  });
}

async function refreshRelationship(given: Given): Promise<void> {
  const trustDomain = readDomain(required(given, "id", "id is required"));
  await ask(given, TrustDomain, (client) => client.refreshBundle({ trustDomain }, { deadlineMs: 30_000 }));
  answer(given, StatusSchema, create(StatusSchema, { code: 0, message: "OK" }), () => print("Bundle refreshed"));
}

const ID = { id: text("SPIFFE ID of the trust domain") };

export const FEDERATION_COMMANDS: Commands = {
  "federation create": serverCommand("Creates a federation relationship", FIELDS, createRelationships),
  "federation update": serverCommand("Updates a federation relationship", FIELDS, updateRelationships),
  "federation list": serverCommand("Lists all federation relationships", {}, listRelationships),
  "federation show": serverCommand(
    "Shows a federation relationship",
    { trustDomain: text("The trust domain name of the federation relationship to show") },
    showRelationship,
  ),
  "federation delete": serverCommand("Deletes a federation relationship", ID, deleteRelationship),
  "federation refresh": serverCommand(
    "Refreshes the bundle from the given federated trust domain",
    ID,
    refreshRelationship,
  ),
};
