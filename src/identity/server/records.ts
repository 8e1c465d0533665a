import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { EntryTree } from "../../core/entries/entry-tree.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type {
  BundleRecord,
  Change,
  KillRecord,
  RelationshipRecord,
  Snapshot,
  Store,
  StoreEvent,
} from "../../io/store/store.ts";
import { NodeTable } from "./node-table.ts";

/** `before`: the entry as it was; null where the change is of something else, or it was not there. */
export type RecordWatcher = (change: Change, before: RegistrationEntry | null) => void;

/**
 * What the store has, in memory: the one place that its changes come to, own ones as those of other replicas. Whoever wants to
 * hear of a change hears it from here, when it can be read here.
 */
export class Records {
  readonly entries: EntryTree;
  readonly nodes = new NodeTable();
  readonly kills = new Map<SpiffeId, KillRecord>();
  readonly bundles = new Map<TrustDomain, BundleRecord>();
  readonly relationships = new Map<TrustDomain, RelationshipRecord>();
  readonly #watchers = new Set<RecordWatcher>();
  #revision = 0;

  private constructor(trustDomain: TrustDomain) {
    this.entries = new EntryTree(trustDomain);
  }

  static async open(store: Store, trustDomain: TrustDomain): Promise<Records> {
    const records = new Records(trustDomain);
    const early: StoreEvent[] = [];
    const stop = store.watch((event) => early.push(event));
    const snapshot = await store.snapshot();
    stop();
    records.#replace(snapshot);
    store.watch((event) => records.#take(event));
    // RACE: what was written while the snapshot was read may be in it or not; its number says which.
    for (const event of early) {
      records.#take(event);
    }
    return records;
  }

  /** Number of the last change that is in here. */
  get revision(): number {
    return this.#revision;
  }

  /** Calls `watcher` after each change, in their order; the function returned ends it. */
  watch(watcher: RecordWatcher): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** The agents whose entries a change touches; each is named once. */
  touched(change: Change, before: RegistrationEntry | null): ReadonlySet<SpiffeId> {
    switch (change.kind) {
      case "entry":
        return this.#holding([before, change.entry].filter((entry) => entry !== null));
      case "node":
        return new Set([change.id]);
      case "kill":
        return new Set([change.id, ...this.#holding(this.entries.ofSpiffeId(change.id))]);
      case "bundle":
        return this.#holding(this.entries.federatingWith(change.id));
      case "relationship":
        return new Set();
    }
  }

  #holding(entries: Iterable<RegistrationEntry>): ReadonlySet<SpiffeId> {
    const found = new Set<SpiffeId>();
    for (const entry of entries) {
      const { agents, aliases } = this.entries.holders(entry);
      for (const id of [...agents, ...aliases.flatMap(({ selectors }) => this.nodes.having(selectors))]) {
        found.add(id);
      }
    }
    return found;
  }

  #take(event: StoreEvent): void {
    if (event.kind === "replaced") {
      this.#replace(event.snapshot);
    } else if (event.revision > this.#revision) {
      this.#apply(event);
    }
  }

  /** After a time without the database: each difference is one change. */
  #replace(snapshot: Snapshot): void {
    const { revision } = snapshot;
    const changes: readonly Change[] = [
      ...differences(this.entries, snapshot.entries, ({ id }) => id).map(
        ([id, entry]) => ({ kind: "entry", revision, id, entry }) as const,
      ),
      ...differences(this.nodes, snapshot.nodes, ({ id }) => id).map(
        ([id, node]) => ({ kind: "node", revision, id, node }) as const,
      ),
      ...differences(this.kills, snapshot.kills, ({ spiffeId }) => spiffeId).map(
        ([id, kill]) => ({ kind: "kill", revision, id, kill }) as const,
      ),
      ...differences(this.bundles, snapshot.bundles, ({ trustDomain }) => trustDomain).map(
        ([id, bundle]) => ({ kind: "bundle", revision, id, bundle }) as const,
      ),
      ...differences(this.relationships, snapshot.relationships, ({ trustDomain }) => trustDomain).map(
        ([id, relationship]) => ({ kind: "relationship", revision, id, relationship }) as const,
      ),
    ];
    for (const change of changes) {
      this.#apply(change);
    }
    this.#revision = revision;
  }

  #apply(change: Change): void {
    const before = change.kind === "entry" ? (this.entries.get(change.id) ?? null) : null;
    switch (change.kind) {
      case "entry":
        setOrDelete(this.entries, change.id, change.entry);
        break;
      case "node":
        setOrDelete(this.nodes, change.id, change.node);
        break;
      case "kill":
        setOrDelete(this.kills, change.id, change.kill);
        break;
      case "bundle":
        setOrDelete(this.bundles, change.id, change.bundle);
        break;
      case "relationship":
        setOrDelete(this.relationships, change.id, change.relationship);
    }
    this.#revision = change.revision;
    for (const watcher of [...this.#watchers]) {
      watcher(change, before);
    }
  }
}

interface Table<K, V> {
  get(key: K): V | undefined;
  keys(): Iterable<K>;
  set(key: K, value: V): unknown;
  delete(key: K): boolean;
}

function setOrDelete<K, V>(map: Table<K, V>, key: K, value: V | null): void {
  if (value === null) {
    map.delete(key);
  } else {
    map.set(key, value);
  }
}

/** What is other in `after`, and null for what is gone. */
function differences<K, V>(
  before: Pick<Table<K, V>, "get" | "keys">,
  after: readonly V[],
  keyOf: (value: V) => K,
): (readonly [K, V | null])[] {
  const there = new Set(after.map(keyOf));
  const gone = [...before.keys()].filter((key) => !there.has(key)).map((key) => [key, null] as const);
  const same = (value: V): boolean => {
    const known = before.get(keyOf(value));
    return known !== undefined && JSON.stringify(known) === JSON.stringify(value);
  };
  return [...gone, ...after.filter((value) => !same(value)).map((value) => [keyOf(value), value] as const)];
}
