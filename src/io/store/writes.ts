import { CHANGES, type Database, setCounter } from "./schema.ts";
import type { Change, ChangedRecord, Snapshot, StoreEvent } from "./store.ts";

/** A write in a transaction; `changed` says what the watchers shall hear of once it is committed. */
export type Write = <T>(work: (db: Database, changed: (record: ChangedRecord) => void) => Promise<T>) => Promise<T>;

/** How the writes of several replicas come into one order. */
export interface Order {
  /**
   * First in a transaction. From here to its end nobody else writes: `position` is that of the last change of all, `missed`
   * are those after `revision`.
   */
  begin(db: Database, revision: number): Promise<{ readonly position: number; readonly missed: readonly Change[] }>;
  /** Last in a transaction that changed something. */
  end(db: Database, changes: readonly Change[]): Promise<void>;
}

/** One replica: nobody else writes. */
export const ALONE: Order = {
  begin: async (_db, revision) => ({ position: revision, missed: [] }),
  end: (db, changes) => setCounter(db, CHANGES, changes.at(-1)?.revision ?? 0),
};

/** The writes of this replica, one after the other; each is told to the watchers before the next begins. */
export class Writes {
  readonly #db: Database;
  readonly #order: Order;
  readonly #watchers = new Set<(event: StoreEvent) => void>();
  #last: Promise<unknown> = Promise.resolve();
  #revision: number;

  constructor(db: Database, revision: number, order: Order = ALONE) {
    this.#db = db;
    this.#order = order;
    this.#revision = revision;
  }

  /** Number of the last change that the watchers were told of. */
  get revision(): number {
    return this.#revision;
  }

  run<T>(work: Parameters<typeof this.transact<T>>[0]): Promise<T> {
    const mine = this.#last.then(() => this.transact(work));
    this.#last = mine.catch(() => undefined);
    return mine;
  }

  watch(watcher: (event: StoreEvent) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Tells the watchers. RACE: own writes and those read from the database meet here: what was told already is skipped. */
  apply(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.revision === this.#revision + 1) {
        this.#tell(change, change.revision);
      }
    }
  }

  /** Too much was missed to be told one by one, or the database was restored to an earlier state. */
  replace(snapshot: Snapshot): void {
    if (snapshot.revision !== this.#revision) {
      this.#tell({ kind: "replaced", snapshot }, snapshot.revision);
    }
  }

  #tell(event: StoreEvent, revision: number): void {
    this.#revision = revision;
    for (const watcher of [...this.#watchers]) {
      watcher(event);
    }
  }

  private async transact<T>(work: (db: Database, changed: (record: ChangedRecord) => void) => Promise<T>): Promise<T> {
    const records: ChangedRecord[] = [];
    const { result, changes } = await this.#db.transaction().execute(async (transaction) => {
      const { position, missed } = await this.#order.begin(transaction, this.#revision);
      const made = await work(transaction, (record) => records.push(record));
      const own = records.map((record, index) => ({ revision: position + 1 + index, ...record }));
      if (own.length > 0) {
        await this.#order.end(transaction, own);
      }
      return { result: made, changes: [...missed, ...own] };
    });
    this.apply(changes);
    return result;
  }
}
