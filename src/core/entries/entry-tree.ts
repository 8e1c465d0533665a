import { type SpiffeId, serverId, type TrustDomain } from "../spiffe/id.ts";
import type { RegistrationEntry } from "./entry.ts";
import { byId } from "./entry-index.ts";
import { type Selector, selectorsMatch } from "./selector.ts";

/** Who may hand an entry out: agents by name, and those whose node has all the selectors of one of these aliases. */
export interface Holders {
  readonly agents: ReadonlySet<SpiffeId>;
  readonly aliases: readonly RegistrationEntry[];
}

/**
 * All entries of a trust domain, arranged by who hands them out, and kept up with each change: what a change costs, and what a
 * question costs, goes with what it touches, not with how many there are.
 */
export class EntryTree {
  readonly #trustDomain: TrustDomain;
  readonly #entries = new Map<string, RegistrationEntry>();
  readonly #byParent = new Groups<SpiffeId>();
  readonly #bySpiffeId = new Groups<SpiffeId>();
  readonly #byFederation = new Groups<TrustDomain>();
  /** Node aliases, each under the one of its selectors that had the fewest of them. */
  readonly #aliases = new Groups<Selector>();
  readonly #aliasPlace = new Map<string, Selector>();
  #sorted: readonly RegistrationEntry[] | null = null;

  constructor(trustDomain: TrustDomain) {
    this.#trustDomain = trustDomain;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(id: string): RegistrationEntry | undefined {
    return this.#entries.get(id);
  }

  keys(): Iterable<string> {
    return this.#entries.keys();
  }

  values(): Iterable<RegistrationEntry> {
    return this.#entries.values();
  }

  /** All, in order of id; kept until the next change. */
  sorted(): readonly RegistrationEntry[] {
    this.#sorted ??= [...this.#entries.values()].sort(byId);
    return this.#sorted;
  }

  set(id: string, entry: RegistrationEntry): void {
    this.delete(id);
    this.#entries.set(id, entry);
    this.#byParent.add(entry.parentId, entry);
    this.#bySpiffeId.add(entry.spiffeId, entry);
    for (const name of entry.federatesWith) {
      this.#byFederation.add(name, entry);
    }
    const [first] = entry.selectors;
    if (entry.parentId === serverId(this.#trustDomain) && first !== undefined) {
      const sizeOf = (selector: Selector): number => this.#aliases.sizeOf(selector);
      const place = entry.selectors.reduce((best, one) => (sizeOf(one) < sizeOf(best) ? one : best), first);
      this.#aliases.add(place, entry);
      this.#aliasPlace.set(id, place);
    }
    this.#sorted = null;
  }

  delete(id: string): boolean {
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      return false;
    }
    this.#entries.delete(id);
    this.#byParent.remove(entry.parentId, entry);
    this.#bySpiffeId.remove(entry.spiffeId, entry);
    for (const name of entry.federatesWith) {
      this.#byFederation.remove(name, entry);
    }
    const place = this.#aliasPlace.get(id);
    if (place !== undefined) {
      this.#aliases.remove(place, entry);
      this.#aliasPlace.delete(id);
    }
    this.#sorted = null;
    return true;
  }

  ofSpiffeId(id: SpiffeId): Iterable<RegistrationEntry> {
    return this.#bySpiffeId.of(id);
  }

  federatingWith(name: TrustDomain): Iterable<RegistrationEntry> {
    return this.#byFederation.of(name);
  }

  /**
   * What an agent may hand out: the children of its own ID, those of its node aliases (entries under the server whose
   * selectors its node has), and the children of each entry found. Ordered by id. SPEC: SPIRE, authorized entries.
   */
  authorized(agentId: SpiffeId, nodeSelectors: Iterable<Selector>): readonly RegistrationEntry[] {
    const found = new Map<string, RegistrationEntry>();
    // The server is nobody's alias: what hangs under it is for nodes alone, and reached only by their selectors.
    const visited = new Set<SpiffeId>([serverId(this.#trustDomain)]);
    const parents: SpiffeId[] = [agentId, ...this.#aliasesOf(new Set(nodeSelectors)).map(({ spiffeId }) => spiffeId)];
    for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
      if (visited.has(parent)) {
        continue;
      }
      visited.add(parent);
      for (const child of this.#byParent.of(parent)) {
        found.set(child.id, child);
        parents.push(child.spiffeId);
      }
    }
    return [...found.values()].sort(byId);
  }

  #aliasesOf(node: ReadonlySet<Selector>): RegistrationEntry[] {
    return [...node].flatMap((selector) =>
      [...this.#aliases.of(selector)].filter((alias) => selectorsMatch(alias.selectors, node)),
    );
  }

  /** The other way round: who may hand out `entry`, or as an alias what is below it. */
  holders({ parentId, ...entry }: RegistrationEntry): Holders {
    const server = serverId(this.#trustDomain);
    const agents = new Set<SpiffeId>();
    const aliases: RegistrationEntry[] = [];
    if (parentId === server) {
      return { agents, aliases: [{ parentId, ...entry }] };
    }
    const parents: SpiffeId[] = [parentId];
    for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
      if (agents.has(parent)) {
        continue;
      }
      agents.add(parent);
      for (const above of this.#bySpiffeId.of(parent)) {
        if (above.parentId === server) {
          aliases.push(above);
        } else {
          parents.push(above.parentId);
        }
      }
    }
    return { agents, aliases };
  }

  /** Whether `authorized` has `entry`. */
  isAuthorized(entry: RegistrationEntry, agentId: SpiffeId, nodeSelectors: Iterable<Selector>): boolean {
    if (entry.parentId === serverId(this.#trustDomain)) {
      return false;
    }
    const { agents, aliases } = this.holders(entry);
    if (agents.has(agentId)) {
      return true;
    }
    const node = new Set(nodeSelectors);
    return aliases.some(({ selectors }) => selectorsMatch(selectors, node));
  }
}

const NONE: ReadonlySet<never> = new Set();

/** Entries by a key that several may have. A group of one, as most are, is kept without a set around it: that is half the memory. */
class Groups<K> {
  readonly #groups = new Map<K, RegistrationEntry | Set<RegistrationEntry>>();

  of(key: K): ReadonlySet<RegistrationEntry> | readonly RegistrationEntry[] {
    const group = this.#groups.get(key);
    return group === undefined ? NONE : group instanceof Set ? group : [group];
  }

  sizeOf(key: K): number {
    const group = this.#groups.get(key);
    return group === undefined ? 0 : group instanceof Set ? group.size : 1;
  }

  add(key: K, entry: RegistrationEntry): void {
    const group = this.#groups.get(key);
    if (group === undefined) {
      this.#groups.set(key, entry);
    } else if (group instanceof Set) {
      group.add(entry);
    } else {
      this.#groups.set(key, new Set([group, entry]));
    }
  }

  remove(key: K, entry: RegistrationEntry): void {
    const group = this.#groups.get(key);
    if (group === entry || (group instanceof Set && group.delete(entry) && group.size === 0)) {
      this.#groups.delete(key);
    }
  }
}
