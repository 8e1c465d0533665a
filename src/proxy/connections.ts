/** Every connection the proxy holds. INVARIANT: registered before it is checked, so that no change of the facts is missed. */
import type { SpiffeId } from "../core/spiffe/id.ts";
import type { Proof } from "./peer.ts";

/** Why the proxy closed a connection; written to the access log. */
export type Cause =
  | "policy-changed"
  | "identity-killed"
  | "plaintext-refused"
  | "trust-removed"
  | "identity-gone"
  | "head-timeout"
  | "idle-timeout"
  | "outside-the-mesh"
  | "draining";

export interface Tracked {
  /** The proven identity at the other end; null while, or because, nothing is proven. */
  readonly peer: SpiffeId | null;
  /** What proved it; null where nothing did. */
  readonly proof: Proof | null;
  /** Why it may not go on under the facts now in force, or null where it may. */
  recheck(): Cause | null;
  close(cause: Cause): void;
  /** Called about once a second, for timeouts. */
  tick(nowMs: number): void;
  /** Ends as soon as what is under way is done; true where it was idle and is closed. */
  drain(): void;
}

export class Connections {
  readonly #open = new Set<Tracked>();

  get size(): number {
    return this.#open.size;
  }

  add(connection: Tracked): void {
    this.#open.add(connection);
  }

  delete(connection: Tracked): void {
    this.#open.delete(connection);
  }

  /** Closes what is no longer allowed; returns how many, by cause. */
  recheck(): Map<Cause, number> {
    const closed = new Map<Cause, number>();
    for (const connection of [...this.#open]) {
      const cause = connection.recheck();
      if (cause !== null) {
        connection.close(cause);
        closed.set(cause, (closed.get(cause) ?? 0) + 1);
      }
    }
    return closed;
  }

  /** Closes every connection that `which` holds of. */
  close(which: (connection: Tracked) => boolean, cause: Cause): number {
    let closed = 0;
    for (const connection of [...this.#open]) {
      if (which(connection)) {
        connection.close(cause);
        closed++;
      }
    }
    return closed;
  }

  tick(nowMs: number): void {
    for (const connection of [...this.#open]) {
      connection.tick(nowMs);
    }
  }

  drain(): void {
    for (const connection of [...this.#open]) {
      connection.drain();
    }
  }
}
