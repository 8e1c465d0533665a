/** Follows the bundles of the trust domains we federate with: one poll after another for each, on its own time. */
import type { Clock } from "../../../core/base/clock.ts";
import { EveryhopError } from "../../../core/base/errors.ts";
import { type Bundle, formatBundle } from "../../../core/spiffe/bundle.ts";
import { type Relationship, refreshDelayMs } from "../../../core/spiffe/federation.ts";
import type { TrustDomain } from "../../../core/spiffe/id.ts";
import type { Log } from "../../../io/log.ts";
import type { Bundles } from "../bundles.ts";

export interface FollowOptions {
  readonly bundles: Bundles;
  readonly fetch: (relationship: Relationship) => Promise<Bundle>;
  readonly clock: Clock;
  readonly log: Log;
  /** The least time between two polls. Default a minute. */
  readonly minRefreshMs?: number;
}

/** How the last poll went. */
export interface FollowState {
  readonly refreshedAtMs: number | null;
  readonly problem: string | null;
}

interface Followed {
  readonly relationship: Relationship;
  cancel: () => void;
  state: FollowState;
  /** The poll under way. */
  polling: Promise<void> | null;
}

export class Follower {
  readonly #options: FollowOptions;
  readonly #followed = new Map<TrustDomain, Followed>();
  #closed = false;

  constructor(options: FollowOptions) {
    this.#options = options;
  }

  stateOf(trustDomain: TrustDomain): FollowState | null {
    return this.#followed.get(trustDomain)?.state ?? null;
  }

  /** Whether the last poll of each went well. */
  states(): ReadonlyMap<TrustDomain, boolean> {
    return new Map([...this.#followed].map(([name, { state }]) => [name, state.problem === null]));
  }

  /** Follows these and no others: new and changed ones are polled at once. */
  follow(relationships: readonly Relationship[]): void {
    const wanted = new Map(relationships.map((one) => [one.trustDomain, one]));
    for (const [trustDomain, followed] of this.#followed) {
      if (!same(followed.relationship, wanted.get(trustDomain))) {
        followed.cancel();
        this.#followed.delete(trustDomain);
      }
    }
    for (const relationship of wanted.values()) {
      if (!this.#followed.has(relationship.trustDomain)) {
        const state = { refreshedAtMs: null, problem: null };
        const followed: Followed = { relationship, cancel: () => {}, state, polling: null };
        this.#followed.set(relationship.trustDomain, followed);
        this.#schedule(followed, 0);
      }
    }
  }

  /** Polls now. Errors: `not-found` where it is not followed; whatever the poll failed with. */
  async refresh(trustDomain: TrustDomain): Promise<void> {
    const followed = this.#followed.get(trustDomain);
    if (followed === undefined) {
      throw new EveryhopError("not-found", `no relationship with trust domain "${trustDomain}"`);
    }
    // RACE: a poll under way may have asked before what the caller wants to see was there.
    await followed.polling?.catch(() => {});
    await this.#poll(followed);
  }

  /** Resolves once no poll is under way. For tests. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#followed.values()].map(({ polling }) => polling));
  }

  close(): void {
    this.#closed = true;
    for (const { cancel } of this.#followed.values()) {
      cancel();
    }
  }

  #schedule(followed: Followed, delayMs: number): void {
    followed.cancel();
    if (!this.#closed && this.#followed.get(followed.relationship.trustDomain) === followed) {
      followed.cancel = this.#options.clock.after(delayMs, () => {
        this.#poll(followed).catch(() => {});
      });
    }
  }

  /** A failure is not chased: the next poll is the next try. SPEC: SPIFFE_Federation §4.1. */
  #poll(followed: Followed): Promise<void> {
    const { trustDomain } = followed.relationship;
    const { bundles, clock, log, minRefreshMs } = this.#options;
    followed.polling ??= this.#update(followed)
      .then(
        () => {
          followed.state = { refreshedAtMs: clock.now(), problem: null };
        },
        (error: unknown) => {
          const problem = (error as Error).message;
          if (followed.state.problem !== problem) {
            log.warn("the bundle of a federated trust domain could not be fetched", {
              trustDomain,
              error: problem,
            });
          }
          followed.state = { ...followed.state, problem };
          throw error;
        },
      )
      .finally(() => {
        followed.polling = null;
        const hint = bundles.federatedWith(trustDomain)?.refreshHintMs ?? null;
        this.#schedule(followed, refreshDelayMs(hint, minRefreshMs));
      });
    return followed.polling;
  }

  async #update(followed: Followed): Promise<void> {
    const { bundles, fetch, log } = this.#options;
    const { trustDomain } = followed.relationship;
    const fetched = await fetch(followed.relationship);
    // RACE: taken out, or changed, while the endpoint answered.
    if (this.#closed || this.#followed.get(trustDomain) !== followed) {
      return;
    }
    const known = bundles.federatedWith(trustDomain);
    if (known !== null && formatBundle(known) === formatBundle(fetched)) {
      return;
    }
    if (known !== null && fetched.sequence < known.sequence) {
      const [before, after] = [known.sequence, fetched.sequence].map(String);
      log.warn("a federated bundle's sequence number went back", { trustDomain, before, after });
    }
    // INVARIANT: the bundle of this trust domain is replaced by what its own endpoint serves, and no other is touched.
    await bundles.set(trustDomain, () => fetched);
    log.info("took a new bundle of a federated trust domain", { trustDomain, sequence: String(fetched.sequence) });
  }
}

function same(a: Relationship, b: Relationship | undefined): boolean {
  return b !== undefined && JSON.stringify(a) === JSON.stringify(b);
}
