/** `spire-server entry create|update|show|count|delete`. */
import { create } from "@bufbuild/protobuf";
import {
  BatchCreateEntryResponseSchema,
  BatchDeleteEntryResponseSchema,
  BatchUpdateEntryResponseSchema,
  CountEntriesResponseSchema,
  Entry,
  ListEntriesResponseSchema,
} from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import type { Entry as Message } from "../../gen/spire/api/types/entry_pb.js";
import type { Status } from "../../gen/spire/api/types/status_pb.js";
import { idOfWire } from "../arguments.ts";
import { warnOfDanglingParents } from "../dangling-warning.ts";
import { note, print } from "../ui.ts";
import { answer, ask, type Commands, goTime, pages, plural, readId, required, serverCommand } from "./command.ts";
import { ENTRY_FIELDS, entriesFromFile, entryFromFlags, idsFromFile } from "./entry-fields.ts";
import { type Flags, flag, type Given, text, UsageError } from "./flags.ts";
import { FEDERATES_FLAGS, federatesMatch, SELECTOR_FLAGS, selectorMatch } from "./match.ts";

const codeNames = [
  "OK",
  "Canceled",
  "Unknown",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Internal",
  "Unavailable",
  "DataLoss",
  "Unauthenticated",
];

export function statusText(status: Status | undefined): string {
  return `code: ${codeNames[status?.code ?? 2] ?? "Unknown"}, msg: ${JSON.stringify(status?.message ?? "no answer")}`;
}

/** As SPIRE prints it, blank line and all: scripts read it. */
export function entryText(entry: Message): string {
  const { x509SvidTtl, jwtSvidTtl, expiresAt, additionalAttributes: more } = entry;
  const rows: [string, string | false][] = [
    ["Entry ID", entry.id || "(none)"],
    ["SPIFFE ID", idOfWire(entry.spiffeId)],
    ["Parent ID", idOfWire(entry.parentId)],
    ["Revision", String(entry.revisionNumber)],
    ["Downstream", entry.downstream && "true"],
    ["X509-SVID TTL", x509SvidTtl === 0 ? "default" : String(x509SvidTtl)],
    ["JWT-SVID TTL", jwtSvidTtl === 0 ? "default" : String(jwtSvidTtl)],
    ["Expiration time", expiresAt !== 0n && goTime(expiresAt)],
    ...entry.selectors.map(({ type, value }): [string, string] => ["Selector", `${type}:${value}`]),
    ...entry.federatesWith.map((name): [string, string] => ["FederatesWith", name]),
    ...entry.dnsNames.map((name): [string, string] => ["DNS name", name]),
    ["Admin", entry.admin && "true"],
    ["StoreSvid", entry.storeSvid && "true"],
    ["Hint", entry.hint || false],
    ["DisableX509SvidPrefetch", more?.disableX509SvidPrefetch === true && "true"],
  ];
  const lines = rows.filter(([, value]) => value !== false).map(([name, value]) => `${name.padEnd(16)} : ${value}`);
  return `${lines.join("\n")}\n`;
}

interface Result {
  readonly status?: Status | undefined;
  readonly entry?: Message | undefined;
}

/** The good ones on standard output, the others on standard error; and an exit code that says whether there were others. */
function showResults(results: readonly Result[], asked: readonly Message[], verb: string): void {
  const failed = results.flatMap(({ status }, index) =>
    (status?.code ?? 2) === 0 ? [] : [{ status, entry: asked[index] }],
  );
  for (const { status, entry } of results) {
    if ((status?.code ?? 2) === 0 && entry !== undefined) {
      print(entryText(entry));
    }
  }
  for (const { status, entry } of failed) {
    note(`Failed to ${verb} the following entry (${statusText(status)}):`);
    note(entry === undefined ? "" : entryText(entry));
  }
  if (failed.length > 0) {
    throw new UsageError(`failed to ${verb} one or more entries`);
  }
}

async function createEntries(given: Given): Promise<void> {
  const path = given.text("data");
  const entries = path === "" ? [entryFromFlags(given, { mustHaveAll: true })] : await entriesFromFile(path);
  const response = await ask(given, Entry, async (client) => {
    const answered = await client.batchCreateEntry({ entries });
    await warnOfDanglingParents(client, answered.results);
    return answered;
  });
  // The server does not give back what it refused: SPIRE's command fills that in from what was asked.
  response.results.forEach((result, index) => {
    const asked = entries[index];
    if (result.status?.code !== 0 && asked !== undefined) {
      result.entry = asked;
    }
  });
  answer(given, BatchCreateEntryResponseSchema, response, ({ results }) => showResults(results, entries, "create"));
}

async function updateEntries(given: Given): Promise<void> {
  const path = given.text("data");
  if (path === "") {
    required(given, "entryID", "entry ID is required");
  }
  const entries = path === "" ? [entryFromFlags(given, { mustHaveAll: true })] : await entriesFromFile(path);
  const response = await ask(given, Entry, (client) => client.batchUpdateEntry({ entries }));
  answer(given, BatchUpdateEntryResponseSchema, response, ({ results }) => showResults(results, entries, "update"));
}

const FILTERS: Flags = {
  parentID: text("The Parent ID of the records to show"),
  spiffeID: text("The SPIFFE ID of the records to show"),
  downstream: flag("Only entries of downstream servers"),
  hint: text("The Hint of the records to show (optional)"),
  ...SELECTOR_FLAGS,
  ...FEDERATES_FLAGS,
};

function filterOf(given: Given) {
  const [parent, id] = [given.text("parentID"), given.text("spiffeID")];
  const [selectors, federates] = [selectorMatch(given), federatesMatch(given)];
  return {
    ...(parent === "" ? {} : { byParentId: readId(parent, "parent ID") }),
    ...(id === "" ? {} : { bySpiffeId: readId(id) }),
    ...(selectors === null ? {} : { bySelectors: selectors }),
    ...(federates === null ? {} : { byFederatesWith: federates }),
    ...(given.has("hint") ? { byHint: given.text("hint") } : {}),
    byDownstream: given.flag("downstream"),
  };
}

async function showEntries(given: Given): Promise<void> {
  const id = given.text("entryID");
  if (id !== "" && ["parentID", "spiffeID", "selector"].some((name) => given.has(name))) {
    throw new UsageError("the -entryID flag can't be combined with others");
  }
  const filter = filterOf(given);
  const entries = await ask(given, Entry, async (client) =>
    id !== ""
      ? [await client.getEntry({ id })]
      : pages(
          (pageToken) => client.listEntries({ filter, pageSize: 500, pageToken }),
          (page) => page.entries,
        ),
  );
  entries.sort((a, b) => compare(sortKey(a), sortKey(b)));
  answer(given, ListEntriesResponseSchema, create(ListEntriesResponseSchema, { entries }), () => {
    print(`Found ${plural(entries.length, "entry", "entries")}`);
    for (const entry of entries) {
      print(entryText(entry));
    }
  });
}

const sortKey = (entry: Message): string => `${idOfWire(entry.spiffeId)} ${idOfWire(entry.parentId)} ${entry.id}`;
const compare = (left: string, right: string): number => (left < right ? -1 : left > right ? 1 : 0);

async function countEntries(given: Given): Promise<void> {
  const filter = filterOf(given);
  const response = await ask(given, Entry, (client) => client.countEntries({ filter }));
  answer(given, CountEntriesResponseSchema, response, ({ count }) => {
    print(`${count} registration ${count === 1 ? "entry" : "entries"}`);
  });
}

async function deleteEntries(given: Given): Promise<void> {
  const file = given.text("file");
  const ids = file === "" ? [required(given, "entryID", "an entry ID is required")] : await idsFromFile(file);
  const response = await ask(given, Entry, (client) => client.batchDeleteEntry({ ids }));
  answer(given, BatchDeleteEntryResponseSchema, response, ({ results }) => {
    const failed = results.filter(({ status }) => status?.code !== 0);
    for (const { id } of results.filter(({ status }) => status?.code === 0)) {
      print(`Deleted entry with ID: ${id}`);
    }
    for (const { id, status } of failed) {
      note(`Failed to delete entry with ID ${id} (${statusText(status)})`);
    }
    if (failed.length > 0) {
      throw new UsageError("failed to delete one or more entries");
    }
    print(`\n\nDeleted ${plural(results.length, "entry", "entries")} successfully`);
  });
}

const ENTRY_ID = { entryID: text("The Registration Entry ID of the record") };

export const ENTRY_COMMANDS: Commands = {
  "entry create": serverCommand("Creates registration entries", ENTRY_FIELDS, createEntries),
  "entry update": serverCommand("Updates registration entries", ENTRY_FIELDS, updateEntries),
  "entry show": serverCommand("Displays configured registration entries", { ...ENTRY_ID, ...FILTERS }, showEntries),
  "entry count": serverCommand("Count registration entries", FILTERS, countEntries),
  "entry delete": serverCommand(
    "Deletes registration entries",
    { ...ENTRY_ID, file: text("Path to a file with JSON for batch deletion; `-` is standard input") },
    deleteEntries,
  ),
};
