import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { EveryhopError } from "../../core/base/errors.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { makeSelector } from "../../core/entries/selector.ts";
import { makeSpiffeId, parseTrustDomain, type SpiffeId } from "../../core/spiffe/id.ts";
import type {
  EntryRevision,
  SyncAuthorizedEntriesRequestSchema,
  SyncAuthorizedEntriesResponse,
} from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import type { Entry } from "../../gen/spire/api/types/entry_pb.js";
import type { SPIFFEID } from "../../gen/spire/api/types/spiffeid_pb.js";

export type SyncStream = ClientDuplexStream<
  MessageInitShape<typeof SyncAuthorizedEntriesRequestSchema>,
  SyncAuthorizedEntriesResponse
>;

/** Ids asked for at once. SPEC: SPIRE agents ask for as many. */
const PAGE = 500;
/** More entries than this on one node are a mistake, not a node. */
const MAX_ENTRIES = 100_000;

const MASK = {
  spiffeId: true,
  parentId: true,
  selectors: true,
  x509SvidTtl: true,
  jwtSvidTtl: true,
  federatesWith: true,
  admin: true,
  downstream: true,
  expiresAt: true,
  dnsNames: true,
  revisionNumber: true,
  storeSvid: true,
  hint: true,
  createdAt: true,
  additionalAttributes: true,
};

/**
 * All entries this agent may hand out, in one exchange: a server with few sends them, one with many sends their revisions, and
 * those that are new or changed against `known` are asked for. Errors: those of the call; `unavailable` where the server
 * breaks the protocol.
 */
export async function syncEntries(
  stream: SyncStream,
  known: ReadonlyMap<string, RegistrationEntry>,
): Promise<readonly RegistrationEntry[]> {
  const messages = (stream as AsyncIterable<SyncAuthorizedEntriesResponse>)[Symbol.asyncIterator]();
  stream.write({ outputMask: MASK });
  const { revisions, entries } = await readPages(messages);
  if (revisions.length === 0) {
    await finish(stream, messages);
    return entries.map(readEntry);
  }
  const found = new Map(entries.map((entry) => [entry.id, readEntry(entry)]));
  const wanted = revisions
    .filter(({ id, revisionNumber }) => known.get(id)?.revision !== Number(revisionNumber))
    .map(({ id }) => id);
  for (let at = 0; at < wanted.length; at += PAGE) {
    stream.write({ ids: wanted.slice(at, at + PAGE) });
    for (const entry of (await readPages(messages)).entries) {
      found.set(entry.id, readEntry(entry));
    }
  }
  await finish(stream, messages);
  // An entry deleted between its revision and its page is in neither.
  return revisions.flatMap(({ id, revisionNumber }) => {
    const entry = found.get(id) ?? known.get(id);
    return entry === undefined || (!found.has(id) && entry.revision !== Number(revisionNumber)) ? [] : [entry];
  });
}

type Messages = AsyncIterator<SyncAuthorizedEntriesResponse>;

async function readPages(messages: Messages): Promise<{ revisions: EntryRevision[]; entries: Entry[] }> {
  const revisions: EntryRevision[] = [];
  const entries: Entry[] = [];
  for (;;) {
    const { done, value } = await messages.next();
    if (done === true) {
      throw new EveryhopError("unavailable", "the server ended the sync of entries early");
    }
    revisions.push(...value.entryRevisions);
    entries.push(...value.entries);
    if (revisions.length > MAX_ENTRIES || entries.length > MAX_ENTRIES) {
      throw new EveryhopError("resource-exhausted", `more than ${MAX_ENTRIES} entries for one agent`);
    }
    if (!value.more) {
      return { revisions, entries };
    }
  }
}

async function finish(stream: SyncStream, messages: Messages): Promise<void> {
  stream.end();
  await messages.return?.();
}

function readEntry(entry: Entry): RegistrationEntry {
  return {
    id: entry.id,
    spiffeId: idOf(entry.spiffeId, entry.id),
    parentId: idOf(entry.parentId, entry.id),
    selectors: entry.selectors.map(({ type, value }) => makeSelector(type, value)),
    x509SvidTtlMs: entry.x509SvidTtl * 1_000,
    jwtSvidTtlMs: entry.jwtSvidTtl * 1_000,
    federatesWith: entry.federatesWith.map(parseTrustDomain),
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAtMs: entry.expiresAt === 0n ? null : Number(entry.expiresAt) * 1_000,
    dnsNames: entry.dnsNames,
    revision: Number(entry.revisionNumber),
    storeSvid: entry.storeSvid,
    hint: entry.hint,
    createdAtMs: Number(entry.createdAt) * 1_000,
    disableX509SvidPrefetch: entry.additionalAttributes?.disableX509SvidPrefetch ?? false,
    jwtSvidIncludeJti: false,
    labels: {},
  };
}

function idOf(id: SPIFFEID | undefined, entryId: string): SpiffeId {
  if (id === undefined) {
    throw new EveryhopError("unavailable", `the server sent entry \`${entryId}\` without an identity`);
  }
  return makeSpiffeId(parseTrustDomain(id.trustDomain), id.path);
}
