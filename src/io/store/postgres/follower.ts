import { Client, type ClientConfig } from "pg";
import { backoffMs } from "../../../core/base/backoff.ts";
import type { Clock } from "../../../core/base/clock.ts";
import type { Database } from "../schema.ts";
import { readSnapshot } from "../sql-store.ts";
import type { Writes } from "../writes.ts";
import { CHANNEL, changesAfter } from "./changes.ts";
import { postgresError } from "./errors.ts";

export interface FollowerOptions {
  readonly db: Database;
  readonly writes: Writes;
  /** For the connection it listens on. */
  readonly config: ClientConfig;
  readonly place: string;
  readonly clock: Clock;
  readonly random: () => number;
  /** Told when the database goes away (with why) and when it is back (null). */
  readonly onState: (problem: Error | null) => void;
}

/** How often to look although nothing was heard: a proxy before the database may not pass notifications on. */
const POLL_MS = 2_000;
const RETRY = { firstMs: 50, maxMs: 2_000 };

/**
 * Tells the watchers what other replicas wrote: the database says that something changed, and the log what. A notification
 * that is lost costs a moment, never a change.
 */
export class Follower {
  readonly #options: FollowerOptions;
  #client: Client | null = null;
  #attempt = 0;
  #problem: Error | null = null;
  #woken = false;
  #wake: () => void = () => {};
  #closed = false;
  readonly #ended: Promise<void>;

  constructor(options: FollowerOptions) {
    this.#options = options;
    this.#ended = this.#run();
  }

  /** Ends it; resolves when nothing is read any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#poke();
    await this.#ended;
    await this.#drop();
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      let pauseMs = POLL_MS;
      try {
        await this.#listen();
        await this.#catchUp();
        this.#attempt = 0;
        this.#say(null);
      } catch (thrown) {
        await this.#drop();
        this.#say(postgresError(thrown, this.#options.place));
        pauseMs = backoffMs(this.#attempt++, RETRY, this.#options.random());
      }
      await this.#pause(pauseMs);
    }
  }

  #say(problem: Error | null): void {
    if ((problem === null) !== (this.#problem === null) && !this.#closed) {
      this.#options.onState(problem);
    }
    this.#problem = problem;
  }

  /** INVARIANT: listens before it reads: what is committed after the reading is told. */
  async #listen(): Promise<void> {
    if (this.#client !== null) {
      return;
    }
    const client = new Client(this.#options.config);
    const lost = (): void => {
      if (this.#client === client) {
        this.#client = null;
        this.#poke();
      }
    };
    client.on("error", lost);
    client.on("end", lost);
    client.on("notification", ({ payload }) => {
      if (Number(payload) > this.#options.writes.revision) {
        this.#poke();
      }
    });
    try {
      await client.connect();
      await client.query(`listen ${CHANNEL}`);
    } catch (error) {
      client.end().catch(() => {});
      throw error;
    }
    this.#client = client;
  }

  async #catchUp(): Promise<void> {
    const { db, writes } = this.#options;
    for (;;) {
      const before = writes.revision;
      const changes = await changesAfter(db, before);
      if (changes === null) {
        writes.replace(await readSnapshot(db));
        return;
      } else if (changes.length === 0) {
        return;
      } else {
        writes.apply(changes);
      }
    }
  }

  async #drop(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    await client?.end().catch(() => {});
  }

  #poke(): void {
    this.#woken = true;
    this.#wake();
  }

  async #pause(ms: number): Promise<void> {
    // After a failure it waits all the same: a database that is away wakes nobody, and a lost connection must not spin.
    if (!this.#closed && (!this.#woken || this.#problem !== null)) {
      this.#woken = false;
      await new Promise<void>((resolve) => {
        const cancel = this.#options.clock.after(ms, resolve);
        this.#wake = () => {
          if (this.#problem === null || this.#closed) {
            cancel();
            resolve();
          }
        };
      });
    }
    this.#woken = false;
  }
}
