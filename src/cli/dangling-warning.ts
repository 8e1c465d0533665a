/** The warning of `entry create`: an entry that no agent will ever hand out. */
import { danglingMessage, danglingParents, missingAlias } from "../core/entries/dangling.ts";
import { parseSpiffeId, type SpiffeId, serverId, trustDomainOf } from "../core/spiffe/id.ts";
import type { Entry } from "../gen/spire/api/server/entry/v1/entry_pb.js";
import type { Entry as Message } from "../gen/spire/api/types/entry_pb.js";
import type { RpcClient } from "../io/rpc/adapter.ts";
import { idOfWire, wireId } from "./arguments.ts";
import { formatIssueForPeople, note } from "./ui.ts";

interface Link {
  readonly spiffeId: SpiffeId;
  readonly parentId: SpiffeId;
}

/** Longer chains of parents than this are not followed: they are believed. */
const MAX_ANCESTORS = 32;

/** Says on standard error what is wrong with the parents of entries that were made, once for each parent. */
export async function warnOfDanglingParents(
  client: RpcClient<typeof Entry>,
  created: readonly { readonly entry?: Message | undefined }[],
): Promise<void> {
  const links = created.flatMap(({ entry }) => (entry === undefined ? [] : [linkOf(entry)]));
  for (const parent of await danglingAmong(client, links).catch((): SpiffeId[] => [])) {
    note(
      formatIssueForPeople({
        code: "entry-dangling",
        severity: "warning",
        message: danglingMessage(parent),
        hint: missingAlias(parent),
      }),
    );
  }
}

function linkOf({ spiffeId, parentId }: Message): Link {
  return { spiffeId: parseSpiffeId(idOfWire(spiffeId)), parentId: parseSpiffeId(idOfWire(parentId)) };
}

async function danglingAmong(client: RpcClient<typeof Entry>, links: readonly Link[]): Promise<SpiffeId[]> {
  const [first] = links;
  if (first === undefined) {
    return [];
  }
  const trustDomain = trustDomainOf(first.parentId);
  const known: Link[] = [...links];
  const asked = new Set<SpiffeId>([serverId(trustDomain)]);
  for (const { parentId } of known) {
    if (!asked.has(parentId)) {
      asked.add(parentId);
      if (asked.size > MAX_ANCESTORS) {
        return [];
      }
      const { entries } = await client.listEntries({ filter: { bySpiffeId: wireId(parentId) }, pageSize: 500 });
      // Read on in the same loop: an array's iterator sees what is added to it.
      known.push(...entries.map(linkOf));
    }
  }
  const dangling = danglingParents(known, trustDomain);
  return [...new Set(links.map(({ parentId }) => parentId))].filter((parent) => dangling.has(parent));
}
