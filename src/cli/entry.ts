import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { Entry } from "../gen/spire/api/server/entry/v1/entry_pb.js";
import { EntryMaskSchema, type Entry as Message } from "../gen/spire/api/types/entry_pb.js";
import { each, text, wireId } from "./arguments.ts";
import { askServer, itemError } from "./ask-server.ts";
import { commandGroup } from "./command-group.ts";
import { warnOfDanglingParents } from "./dangling-warning.ts";
import {
  entryMessage,
  type FieldOptions,
  type FilterOptions,
  fieldsOf,
  filterOf,
  type Output,
  withFields,
  withFilters,
} from "./entry-options.ts";
import { entryDocument, entryText } from "./entry-text.ts";
import { addMeshOptions } from "./find-mesh.ts";
import { warnOfSelectors } from "./selector-warning.ts";
import { print, printJson } from "./ui.ts";

export function define(program: Command): void {
  const entry = commandGroup(program, "entry", "registration entries: which workload gets which identity");
  withFields(addMeshOptions(entry.command("create")))
    .description("register a workload")
    .option("--node", "the entry names nodes, by what their attestation found")
    .addHelpText(
      "after",
      `
Examples:
  everyhop entry create --spiffe-id spiffe://example.com/ns/shop/sa/web \\
    --parent-id spiffe://example.com/spire/agent/join_token/TOKEN --selector unix:uid:1000 --selector unix:path:/usr/bin/web`,
    )
    .action(createEntry);
  withFields(addMeshOptions(entry.command("update")))
    .description("change what is named of an entry; the rest stays")
    .addHelpText("after", "\nExample:\n  everyhop entry update --entry-id ID --x509-svid-ttl 30m")
    .action(updateEntry);
  withFilters(addMeshOptions(entry.command("show")))
    .description("show the entries that match")
    .addHelpText("after", "\nExamples:\n  everyhop entry show\n  everyhop entry show --selector unix:uid:1000 --json")
    .action(showEntries);
  withFilters(addMeshOptions(entry.command("count")))
    .description("count the entries that match")
    .addHelpText("after", "\nExample:\n  everyhop entry count --parent-id spiffe://example.com/node/web")
    .action(countEntries);
  addMeshOptions(entry.command("delete"))
    .description("delete entries; their SVIDs live out their time, and are not renewed")
    .requiredOption("--entry-id <id>", "which; may be given several times", each(text))
    .option("--json", "what was deleted as JSON")
    .addHelpText("after", "\nExample:\n  everyhop entry delete --entry-id ID")
    .action(deleteEntries);
}

async function createEntry(options: FieldOptions): Promise<void> {
  const { spiffeId: id, parentId, node, selector: selectors, entryId } = options;
  if (id === undefined || selectors === undefined || (parentId === undefined && node !== true)) {
    throw new EveryhopError("usage", "an entry needs `--spiffe-id`, `--selector` and `--parent-id` (or `--node`)", {
      hint: "`everyhop entry create --help` has an example",
    });
  }
  const parent = node === true ? { parentId: { trustDomain: wireId(id).trustDomain, path: "/spire/server" } } : {};
  const { results } = await askServer(options, Entry, async (entries) => {
    const entry = entryMessage({ id: entryId ?? "", ...fieldsOf(options), ...parent });
    const answer = await entries.batchCreateEntry({ entries: [entry] });
    await warnOfDanglingParents(entries, answer.results);
    warnOfSelectors(answer.results);
    return answer;
  });
  const [result] = results;
  const error = itemError(result?.status);
  if (error !== null || result?.entry === undefined) {
    const similar = result?.entry === undefined ? "" : `: \`${result.entry.id}\``;
    throw new EveryhopError(error?.code ?? "internal", `${error?.message ?? "no answer"}${similar}`, {
      hint:
        similar === ""
          ? "check the flags against `everyhop entry create --help`"
          : "`everyhop entry update` changes it",
    });
  }
  show(options, result.entry);
}

async function updateEntry(options: FieldOptions): Promise<void> {
  const { entryId } = options;
  const fields = fieldsOf(options);
  if (entryId === undefined || Object.keys(fields).length === 0) {
    throw new EveryhopError("usage", "`--entry-id` says which entry, other options what to change of it", {
      hint: "`everyhop entry show` lists the entries",
    });
  }
  const inputMask = create(EntryMaskSchema, Object.fromEntries(Object.keys(fields).map((name) => [name, true])));
  const { results } = await askServer(options, Entry, (entries) =>
    entries.batchUpdateEntry({ entries: [entryMessage({ ...fields, id: entryId })], inputMask }),
  );
  const error = itemError(results[0]?.status);
  if (error !== null || results[0]?.entry === undefined) {
    throw error ?? new EveryhopError("internal", "no answer");
  }
  show(options, results[0].entry);
}

function show({ json }: Output, entry: Message): void {
  if (json === true) {
    printJson(entryDocument(entry));
  } else {
    print(entryText(entryDocument(entry)));
  }
}

const PAGE_SIZE = 500;

async function showEntries(options: FilterOptions): Promise<void> {
  const found = await askServer(options, Entry, async (entries) => {
    if (options.entryId !== undefined) {
      return [await entries.getEntry({ id: options.entryId })];
    }
    const all: Message[] = [];
    let pageToken = "";
    do {
      const page = await entries.listEntries({ filter: filterOf(options), pageSize: PAGE_SIZE, pageToken });
      all.push(...page.entries);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return all;
  });
  const documents = found.map(entryDocument);
  if (options.json === true) {
    printJson({ entries: documents });
  } else {
    print(`Found ${documents.length} ${documents.length === 1 ? "entry" : "entries"}`);
    for (const document of documents) {
      print(`\n${entryText(document)}`);
    }
  }
}

async function countEntries(options: FilterOptions): Promise<void> {
  const { count } = await askServer(options, Entry, (entries) => entries.countEntries({ filter: filterOf(options) }));
  if (options.json === true) {
    printJson({ count });
  } else {
    print(`${count} registration ${count === 1 ? "entry" : "entries"}`);
  }
}

async function deleteEntries(options: Output & { readonly entryId: string[] }): Promise<void> {
  const { results } = await askServer(options, Entry, (entries) => entries.batchDeleteEntry({ ids: options.entryId }));
  const failed = results.flatMap(({ id, status }) => {
    const error = itemError(status);
    return error === null ? [] : [{ id, error }];
  });
  const deleted = results.map(({ id }) => id).filter((id) => !failed.some((one) => one.id === id));
  if (options.json === true && failed.length === 0) {
    printJson({ deleted });
  } else if (options.json !== true) {
    for (const id of deleted) {
      print(`Deleted entry with ID: ${id}`);
    }
  }
  const [first] = failed;
  if (first !== undefined) {
    throw new EveryhopError(first.error.code, `entry \`${first.id}\`: ${first.error.message}`, {
      hint: "`everyhop entry show` lists the entries",
    });
  }
}
