/** `spire-server bundle show|list|set|delete|count`. */
import { create } from "@bufbuild/protobuf";
import { formatBundle } from "../../core/spiffe/bundle.ts";
import { trustDomainFault } from "../../core/spiffe/id.ts";
import { certificatesToPem } from "../../core/x509/pem.ts";
import {
  BatchDeleteFederatedBundleResponseSchema,
  BatchSetFederatedBundleResponseSchema,
  Bundle,
  CountBundlesResponseSchema,
  ListFederatedBundlesResponseSchema,
  BatchDeleteFederatedBundleRequest_Mode as Mode,
} from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { BundleSchema, type Bundle as Message } from "../../gen/spire/api/types/bundle_pb.js";
import { bundleMessage, bundleOf, readBundleFile } from "../bundle-file.ts";
import { print } from "../ui.ts";
import { answer, ask, type Commands, pages, plural, required, serverCommand } from "./command.ts";
import { type Given, text, UsageError } from "./flags.ts";

type Format = "pem" | "spiffe";

export function readFormat(given: Given, name = "format"): Format {
  const format = (given.text(name) || "pem").toLowerCase();
  if (format !== "pem" && format !== "spiffe") {
    throw new UsageError(`invalid format: "${format}"`);
  }
  return format;
}

/** `example.org`, or `spiffe://example.org`. */
export function readDomain(value: string): string {
  const name = value.replace(/^spiffe:\/\//, "");
  const fault = trustDomainFault(name);
  if (fault !== null) {
    throw new UsageError(`"${value}" is not a trust domain: ${fault}`);
  }
  return name;
}

function bundleText(message: Message, format: Format): string {
  const bundle = bundleOf(message);
  return format === "pem"
    ? certificatesToPem(bundle.x509Authorities).trimEnd()
    : JSON.stringify(JSON.parse(formatBundle(bundle)), null, 4);
}

const LINE = "****************************************";

async function showBundle(given: Given): Promise<void> {
  const format = readFormat(given);
  const bundle = await ask(given, Bundle, (client) => client.getBundle({}));
  answer(given, BundleSchema, bundle, () => print(bundleText(bundle, format)));
}

async function listBundles(given: Given): Promise<void> {
  const format = readFormat(given);
  const id = given.text("id");
  if (id !== "") {
    const bundle = await ask(given, Bundle, (client) => client.getFederatedBundle({ trustDomain: readDomain(id) }));
    answer(given, BundleSchema, bundle, () => print(bundleText(bundle, format)));
    return;
  }
  const bundles = await ask(given, Bundle, (client) =>
    pages(
      (pageToken) => client.listFederatedBundles({ pageSize: 100, pageToken }),
      (page) => page.bundles,
    ),
  );
  answer(given, ListFederatedBundlesResponseSchema, create(ListFederatedBundlesResponseSchema, { bundles }), () => {
    const parts = bundles.map((one) => `${LINE}\n* ${one.trustDomain}\n${LINE}\n${bundleText(one, format)}`);
    print(parts.join("\n\n"));
  });
}

async function setBundle(given: Given): Promise<void> {
  const trustDomain = readDomain(required(given, "id", "id flag is required"));
  const path = given.text("path");
  const bundle = bundleMessage(readBundleFile(trustDomain, path === "" ? undefined : path, readFormat(given)));
  const response = await ask(given, Bundle, (client) => client.batchSetFederatedBundle({ bundle: [bundle] }));
  answer(given, BatchSetFederatedBundleResponseSchema, response, ({ results: [result] }) => {
    if (result?.status?.code !== 0) {
      throw new UsageError(`failed to set federated bundle: ${result?.status?.message ?? "no answer"}`);
    }
    print("bundle set.");
  });
}

const MODES: Readonly<Record<string, Mode>> = {
  restrict: Mode.RESTRICT,
  dissociate: Mode.DISSOCIATE,
  delete: Mode.DELETE,
};

async function deleteBundle(given: Given): Promise<void> {
  const trustDomain = readDomain(required(given, "id", "id is required"));
  const word = given.text("mode") || "restrict";
  const mode = Object.hasOwn(MODES, word) ? MODES[word] : undefined;
  if (mode === undefined) {
    throw new UsageError(`unsupported mode "${word}"`);
  }
  const response = await ask(given, Bundle, (client) =>
    client.batchDeleteFederatedBundle({ trustDomains: [trustDomain], mode }),
  );
  answer(given, BatchDeleteFederatedBundleResponseSchema, response, ({ results: [result] }) => {
    if (result?.status?.code !== 0) {
      throw new UsageError(
        `failed to delete federated bundle "${trustDomain}": ${result?.status?.message ?? "no answer"}`,
      );
    }
    print("bundle deleted.");
  });
}

async function countBundles(given: Given): Promise<void> {
  const response = await ask(given, Bundle, (client) => client.countBundles({}));
  answer(given, CountBundlesResponseSchema, response, ({ count }) => print(plural(count, "bundle")));
}

const FORMAT = { format: text('The format of the bundle, "pem" (default) or "spiffe"') };
const ID = { id: text("SPIFFE ID of the trust domain") };

export const BUNDLE_COMMANDS: Commands = {
  "bundle show": serverCommand("Prints the server's trust bundle to stdout", FORMAT, showBundle),
  "bundle list": serverCommand("Lists federated bundle data", { ...ID, ...FORMAT }, listBundles),
  "bundle set": serverCommand(
    "Creates or updates federated bundle data",
    { ...ID, ...FORMAT, path: text("Path to the bundle data (default: standard input)") },
    setBundle,
  ),
  "bundle delete": serverCommand(
    "Deletes federated bundle data",
    { ...ID, mode: text("Deletion mode: one of restrict (default), delete, or dissociate") },
    deleteBundle,
  ),
  "bundle count": serverCommand("Count bundles", {}, countBundles),
};
