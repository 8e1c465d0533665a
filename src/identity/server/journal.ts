import type { Clock } from "../../core/base/clock.ts";
import type { IssuanceIntent, IssuanceStore } from "../../io/store/store.ts";
import type { Journal } from "../authority/journal.ts";

/**
 * The authority's journal on disk. What is asked for within one turn of the event loop is written in one transaction: a
 * batch of five hundred SVIDs costs two syncs of the disk, not a thousand.
 */
export function storeJournal(store: IssuanceStore, clock: Clock): Journal {
  const intents = new Group<IssuanceIntent>((batch) => store.intend(batch, clock.now()));
  const records = new Group<{ serial: string; issued: Uint8Array }>((batch) => store.record(batch));
  return {
    intend: (intent) => intents.add(intent),
    record: (serial, issued) => records.add({ serial, issued }),
  };
}

/** Items written together; each `add` resolves, or fails, with the write it was part of. */
class Group<T> {
  readonly #write: (batch: readonly T[]) => Promise<void>;
  #waiting: T[] = [];
  #written: Promise<void> = Promise.resolve();

  constructor(write: (batch: readonly T[]) => Promise<void>) {
    this.#write = write;
  }

  add(item: T): Promise<void> {
    this.#waiting.push(item);
    if (this.#waiting.length === 1) {
      this.#written = new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
        const batch = this.#waiting;
        this.#waiting = [];
        return this.#write(batch);
      });
    }
    return this.#written;
  }
}
