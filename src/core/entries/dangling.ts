/** Entries that give nobody an identity, because no agent can hand them out: the most silent mistake of a registry. */
import { pathOf, type SpiffeId, serverId, type TrustDomain } from "../spiffe/id.ts";
import type { RegistrationEntry } from "./entry.ts";

type Link = Pick<RegistrationEntry, "spiffeId" | "parentId">;

/**
 * The parents that lead to no agent, in order, each with the entries directly under it. A parent leads to one where it is an
 * agent's ID, a node alias (an entry under the server), or the identity of an entry whose own parent does. Whether agents with
 * those IDs have attested is not looked at: they may yet.
 */
export function danglingParents<E extends Link>(
  entries: readonly E[],
  trustDomain: TrustDomain,
): ReadonlyMap<SpiffeId, readonly E[]> {
  const children = Map.groupBy(entries, ({ parentId }) => parentId);
  const roots = [...children.keys()].filter((id) => leadsToAgents(id, trustDomain));
  const reached = new Set<SpiffeId>(roots);
  for (let id = roots.pop(); id !== undefined; id = roots.pop()) {
    for (const { spiffeId } of children.get(id) ?? []) {
      if (!reached.has(spiffeId)) {
        reached.add(spiffeId);
        roots.push(spiffeId);
      }
    }
  }
  return new Map([...children].filter(([parent]) => !reached.has(parent)).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** By itself, whatever the entries are. */
function leadsToAgents(id: SpiffeId, trustDomain: TrustDomain): boolean {
  return id === serverId(trustDomain) || pathOf(id).startsWith("/spire/agent/");
}

/** What is wrong with a parent that `danglingParents` found. */
export function danglingMessage(parent: SpiffeId): string {
  return `the parent \`${parent}\` is no agent's ID and no node alias: no agent hands this identity out`;
}

/** The entry that is missing, for a person to complete. `selectors`: those of a node that attested, as an example. */
export function missingAlias(parent: SpiffeId, selectors: readonly string[] = []): string {
  const [example = "TYPE:VALUE"] = selectors;
  return (
    `name the nodes that stand for it: \`entry create -node -spiffeID ${parent} -selector ${example}\` ` +
    "with a selector that `agent show` lists for them"
  );
}
