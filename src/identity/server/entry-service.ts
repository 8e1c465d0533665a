import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { EveryhopError } from "../../core/base/errors.ts";
import type { EntryDraft, RegistrationEntry } from "../../core/entries/entry.ts";
import { byId } from "../../core/entries/entry-index.ts";
import { covers, entryOutOfScope, type Scope } from "../../core/entries/role.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type {
  Entry,
  SyncAuthorizedEntriesRequest,
  SyncAuthorizedEntriesResponseSchema,
} from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import type { EntryMask } from "../../gen/spire/api/types/entry_pb.js";
import { itemStatus, OK_STATUS } from "../../io/rpc/errors.ts";
import { draftFromWire, entryFilter, entryToWire, mergeDraft } from "./entry-wire.ts";
import type { CallContext, GuardedHandlers } from "./guard.ts";
import type { Registry } from "./registry.ts";
import { page, seconds } from "./wire.ts";

/** Entries of one message of a sync; with more than these the agent is told revisions first. As SPIRE. */
const SYNC_PAGE = 500;

/** spire.api.server.entry.v1.Entry. */
export function entryService(registry: Registry, syncPage = SYNC_PAGE): GuardedHandlers<typeof Entry> {
  return {
    countEntries: ({ filter }, { scope }) => ({ count: visible(registry, scope).filter(entryFilter(filter)).length }),
    listEntries({ filter, outputMask, pageSize, pageToken }, { scope }) {
      const matching = visible(registry, scope).filter(entryFilter(filter));
      const found = page(matching, ({ id }) => id, pageSize, pageToken);
      return {
        entries: found.items.map((entry) => entryToWire(entry, outputMask)),
        nextPageToken: found.nextPageToken,
      };
    },
    getEntry({ id, outputMask }, { scope }) {
      const entry = visibleEntry(registry, scope, id);
      if (entry === null) {
        throw new EveryhopError("not-found", `entry \`${id.slice(0, 256)}\` not found`);
      }
      return entryToWire(entry, outputMask);
    },
    ...batchMethods(registry),
    getAuthorizedEntries: ({ outputMask }, context) => ({
      entries: authorized(registry, context).map((entry) => entryToWire(entry, outputMask)),
    }),
    syncAuthorizedEntries: (call, context) =>
      syncEntries(call, { registry, agent: context.node?.id ?? null, pageSize: syncPage }),
  };
}

function authorized(registry: Registry, { node }: CallContext) {
  return node === null ? [] : registry.authorizedEntries(node.id);
}

/** The entries a caller may know of. */
function visible(registry: Registry, scope: Scope | null): readonly RegistrationEntry[] {
  return scope === null ? registry.entries() : registry.entries().filter(({ spiffeId }) => covers(scope, spiffeId));
}

function visibleEntry(registry: Registry, scope: Scope | null, id: string): RegistrationEntry | null {
  const entry = registry.entry(id);
  return entry !== null && covers(scope, entry.spiffeId) ? entry : null;
}

/** Errors: `permission-denied`, with what is out of reach. */
function refuseOutOfScope(scope: Scope | null, draft: EntryDraft): void {
  const fault = entryOutOfScope(scope, draft);
  if (fault !== null) {
    throw new EveryhopError("permission-denied", fault);
  }
}

type Batches = "batchCreateEntry" | "batchUpdateEntry" | "batchDeleteEntry";

/** One bad item fails alone; the order is kept. */
function batchMethods(registry: Registry): Pick<GuardedHandlers<typeof Entry>, Batches> {
  return {
    async batchCreateEntry({ entries, outputMask }, { scope }) {
      const results = await eachInTurn(entries, async (entry) => {
        const draft = draftFromWire(entry);
        refuseOutOfScope(scope, draft);
        const made = await registry.createEntry(draft);
        const similar = { code: status.ALREADY_EXISTS, message: "similar entry already exists" };
        return { status: made.created ? OK_STATUS : similar, entry: entryToWire(made.entry, outputMask) };
      });
      return { results };
    },
    async batchUpdateEntry({ entries, inputMask, outputMask }, { scope }) {
      const results = await eachInTurn(entries, async (entry) => {
        const draft = draftFromWire(entry);
        const updated = await registry.updateEntry(entry.id, (current) => {
          // INVARIANT: both what it was and what it becomes are the caller's to change.
          refuseOutOfScope(scope, current);
          const changed = mergeDraft(current, draft, inputMask);
          refuseOutOfScope(scope, changed);
          return changed;
        });
        return { status: OK_STATUS, entry: entryToWire(updated, outputMask) };
      });
      return { results };
    },
    async batchDeleteEntry({ ids }, { scope }) {
      const results = await eachInTurn(ids, async (id) => {
        const entry = visibleEntry(registry, scope, id);
        if (entry !== null) {
          refuseOutOfScope(scope, entry);
        }
        // What it may not see is to it as if it were not there.
        const there = (scope === null || entry !== null) && (await registry.deleteEntry(id));
        return { id, status: there ? OK_STATUS : { code: status.NOT_FOUND, message: "entry not found" } };
      });
      return { results: results.map((result, index) => ({ id: ids[index] ?? "", ...result })) };
    },
  };
}

/** The results of `work` on each item, one after the other; an error is that item's status. */
export async function eachInTurn<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<(R | { status: { code: number; message: string } })[]> {
  const results: (R | { status: { code: number; message: string } })[] = [];
  for (const item of items) {
    try {
      results.push(await work(item));
    } catch (error) {
      results.push({ status: itemStatus(error) });
    }
  }
  return results;
}

type SyncCall = ServerDuplexStream<
  SyncAuthorizedEntriesRequest,
  MessageInitShape<typeof SyncAuthorizedEntriesResponseSchema>
>;

/**
 * Few entries go down in full at once. Of many the agent is told the revisions, and asks for those it does not have.
 * SPEC: SPIRE Entry.SyncAuthorizedEntries.
 */
async function syncEntries(
  call: SyncCall,
  { registry, agent, pageSize }: { registry: Registry; agent: SpiffeId | null; pageSize: number },
): Promise<void> {
  let mask: EntryMask | undefined;
  let first = true;
  // Not destroyed when a request is refused: the status has to go out on it.
  for await (const message of call.iterator({ destroyOnReturn: false })) {
    const request = message as SyncAuthorizedEntriesRequest;
    if (first) {
      first = false;
      mask = request.outputMask;
      checkFirst(request);
      await sendOverview(call, agent === null ? [] : registry.authorizedEntries(agent), mask, pageSize);
    } else {
      // What the agent is no longer authorised for is left out without a word: it may have gone since it was told of it.
      const found = [...new Set(request.ids)]
        .map((id) => (agent === null ? null : registry.authorizedEntry(agent, id)))
        .filter((entry) => entry !== null)
        .sort(byId);
      await sendAsked(call, found, mask, pageSize);
    }
  }
  call.end();
}

function checkFirst({ ids, outputMask }: SyncAuthorizedEntriesRequest): void {
  if (ids.length > 0) {
    throw new EveryhopError("invalid-argument", "specifying IDs on initial request is not supported");
  }
  if (outputMask !== undefined && !outputMask.revisionNumber) {
    throw new EveryhopError("invalid-argument", "revision number cannot be masked");
  }
}

async function sendOverview(
  call: SyncCall,
  entries: readonly RegistrationEntry[],
  mask: EntryMask | undefined,
  pageSize: number,
): Promise<void> {
  if (entries.length <= pageSize) {
    await send(call, { entries: entries.map((entry) => entryToWire(entry, mask)) });
    return;
  }
  for (const { items, more } of pages(entries, pageSize)) {
    const entryRevisions = items.map(({ id, revision, createdAtMs }) => ({
      id,
      revisionNumber: BigInt(revision),
      createdAt: seconds(createdAtMs),
    }));
    await send(call, { entryRevisions, more });
  }
}

async function sendAsked(
  call: SyncCall,
  found: readonly RegistrationEntry[],
  mask: EntryMask | undefined,
  pageSize: number,
): Promise<void> {
  for (const { items, more } of pages(found, pageSize)) {
    await send(call, { entries: items.map((entry) => entryToWire(entry, mask)), more });
  }
}

/** Writes no faster than the agent reads. */
function send(call: SyncCall, message: MessageInitShape<typeof SyncAuthorizedEntriesResponseSchema>): Promise<void> {
  return new Promise((resolve, reject) => {
    call.write(message, (error?: Error | null) => (error == null ? resolve() : reject(error)));
  });
}

/** At least one page, if an empty one. */
function* pages<T>(items: readonly T[], size: number): Generator<{ items: readonly T[]; more: boolean }> {
  let start = 0;
  do {
    yield { items: items.slice(start, start + size), more: start + size < items.length };
    start += size;
  } while (start < items.length);
}
