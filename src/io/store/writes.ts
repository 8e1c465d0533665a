import { type Database, setCounter } from "./schema.ts";
import type { Change, ChangedRecord } from "./store.ts";

/** A write in a transaction; `changed` says what the watchers shall hear of once it is committed. */
export type Write = <T>(work: (db: Database, changed: (record: ChangedRecord) => void) => Promise<T>) => Promise<T>;

/** The writes, one after the other; each is told to the watchers before the next begins. */
export class Writes {
  readonly #db: Database;
  readonly #watchers = new Set<(change: Change) => void>();
  #last: Promise<unknown> = Promise.resolve();
  revision: number;

  constructor(db: Database, revision: number) {
    this.#db = db;
    this.revision = revision;
  }

  run<T>(work: Parameters<typeof this.transact<T>>[0]): Promise<T> {
    const mine = this.#last.then(() => this.transact(work));
    this.#last = mine.catch(() => undefined);
    return mine;
  }

  watch(watcher: (change: Change) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  private async transact<T>(work: (db: Database, changed: (record: ChangedRecord) => void) => Promise<T>): Promise<T> {
    const records: ChangedRecord[] = [];
    const result = await this.#db.transaction().execute(async (transaction) => {
      const made = await work(transaction, (record) => records.push(record));
      if (records.length > 0) {
        await setCounter(transaction, "changes", this.revision + records.length);
      }
      return made;
    });
    for (const record of records) {
      this.revision++;
      for (const watcher of [...this.#watchers]) {
        watcher({ revision: this.revision, ...record });
      }
    }
    return result;
  }
}
