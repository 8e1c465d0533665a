import { type SpiffeId, serverId, type TrustDomain } from "../spiffe/id.ts";
import type { RegistrationEntry } from "./entry.ts";
import { type Selector, selectorsMatch } from "./selector.ts";

/**
 * Entries, arranged for the two questions asked of them: which match a workload, and which an agent may hand out. Each entry
 * is filed under the rarest of its selectors, so that common ones (`unix:uid:0`) do not bring thousands to compare.
 */
export class EntryIndex {
  readonly entries: readonly RegistrationEntry[];
  readonly #byRarestSelector: ReadonlyMap<Selector, readonly RegistrationEntry[]>;
  readonly #byParent: ReadonlyMap<SpiffeId, readonly RegistrationEntry[]>;

  constructor(entries: readonly RegistrationEntry[]) {
    this.entries = entries;
    const uses = new Map<Selector, number>();
    for (const entry of entries) {
      for (const selector of entry.selectors) {
        uses.set(selector, (uses.get(selector) ?? 0) + 1);
      }
    }
    this.#byRarestSelector = Map.groupBy(
      entries.filter((entry) => entry.selectors.length > 0),
      (entry) => rarest(entry.selectors, uses),
    );
    this.#byParent = Map.groupBy(entries, (entry) => entry.parentId);
  }

  /** Entries whose selectors are all among `found`, ordered by id. */
  matching(found: Iterable<Selector>): readonly RegistrationEntry[] {
    const set = new Set(found);
    const matches: RegistrationEntry[] = [];
    for (const selector of set) {
      for (const entry of this.#byRarestSelector.get(selector) ?? []) {
        if (selectorsMatch(entry.selectors, set)) {
          matches.push(entry);
        }
      }
    }
    return matches.sort(byId);
  }

  childrenOf(parent: SpiffeId): readonly RegistrationEntry[] {
    return this.#byParent.get(parent) ?? [];
  }

  /**
   * What an agent may hand out: the children of its own ID, those of its node aliases (entries under the server whose
   * selectors its node has), and the children of each entry found. Ordered by id. SPEC: SPIRE, authorized entries.
   */
  authorized(
    agentId: SpiffeId,
    nodeSelectors: Iterable<Selector>,
    trustDomain: TrustDomain,
  ): readonly RegistrationEntry[] {
    const found = new Map<string, RegistrationEntry>();
    const node = new Set(nodeSelectors);
    const server = serverId(trustDomain);
    const aliases = this.childrenOf(server).filter((entry) => selectorsMatch(entry.selectors, node));
    // The server is nobody's alias: what hangs under it is for nodes alone, and reached only by their selectors.
    const visited = new Set<SpiffeId>([server]);
    const parents: SpiffeId[] = [agentId, ...aliases.map((alias) => alias.spiffeId)];
    for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
      if (visited.has(parent)) {
        continue;
      }
      visited.add(parent);
      for (const child of this.childrenOf(parent)) {
        found.set(child.id, child);
        parents.push(child.spiffeId);
      }
    }
    return [...found.values()].sort(byId);
  }
}

function rarest(selectors: readonly Selector[], uses: ReadonlyMap<Selector, number>): Selector {
  return selectors.reduce((best, one) => ((uses.get(one) ?? 0) < (uses.get(best) ?? 0) ? one : best));
}

export function byId(left: { readonly id: string }, right: { readonly id: string }): number {
  return left.id < right.id ? -1 : left.id > right.id ? 1 : 0;
}

/** An `EntryIndex` for one question. */
export function authorizedEntries(
  agentId: SpiffeId,
  nodeSelectors: Iterable<Selector>,
  entries: readonly RegistrationEntry[],
  trustDomain: TrustDomain,
): readonly RegistrationEntry[] {
  return new EntryIndex(entries).authorized(agentId, nodeSelectors, trustDomain);
}
