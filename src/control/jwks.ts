/**
 * The key sets that `jwksUri` names, fetched here and given to the sidecars that need them. A set stays until a newer one was
 * read; while there is none, its tokens are refused.
 */

import { Cell } from "../core/base/cell.ts";
import type { Cidr } from "../core/base/cidr.ts";
import type { Clock } from "../core/base/clock.ts";
import { toEveryhopError } from "../core/base/errors.ts";
import { parseJwks } from "../core/jose/jwk.ts";
import type { Resource } from "../core/policy/resources.ts";
import { type GuardedAnswer, type GuardedGetOptions, guardedGet } from "../io/guarded-get.ts";
import type { Log } from "../io/log.ts";

/** Key sets as text, by their URL. */
export type KeySets = ReadonlyMap<string, string>;

export interface JwksOptions {
  /** Blocks that may be fetched from although they are not public. */
  readonly allowed: readonly Cidr[];
  readonly clock: Clock;
  readonly log: Log;
  readonly get?: (url: string, options: GuardedGetOptions) => Promise<GuardedAnswer>;
}

/** As istiod does, where the answer does not say. */
const REFRESH_MS = 20 * 60_000;
const MIN_REFRESH_MS = 60_000;
const MAX_REFRESH_MS = 60 * 60_000;
/** After a failure, doubled up to the usual interval. */
const RETRY_MS = 1_000;
/** A token with an unknown key asks for the set at most this often. */
const WANTED_MS = 5_000;
const MAX_BYTES = 1024 * 1024;
const MAX_URLS = 1_000;

interface Followed {
  timeoutMs: number;
  failures: number;
  /** Null where the last answer was good, or none has come yet. */
  fault: string | null;
  /** When it was last asked for. */
  askedMs: number;
  busy: boolean;
  cancel: (() => void) | null;
}

export class Jwks {
  readonly keySets: Cell<KeySets> = new Cell<KeySets>(new Map());
  readonly #options: JwksOptions;
  readonly #followed = new Map<string, Followed>();

  constructor(options: JwksOptions) {
    this.#options = options;
  }

  /** Follows what these resources name, and nothing else. */
  follow(resources: readonly Resource[]): void {
    const wanted = new Map(
      resources.flatMap((resource) =>
        resource.kind !== "RequestAuthentication"
          ? []
          : resource.jwtRules.flatMap(({ jwks, jwksUri, timeoutMs }): [string, number][] =>
              jwks === null && jwksUri !== null ? [[jwksUri, timeoutMs]] : [],
            ),
      ),
    );
    for (const [url, { cancel }] of this.#followed) {
      if (!wanted.has(url)) {
        cancel?.();
        this.#followed.delete(url);
      }
    }
    if ([...this.keySets.value.keys()].some((url) => !wanted.has(url))) {
      this.keySets.set(new Map([...this.keySets.value].filter(([url]) => wanted.has(url))));
    }
    for (const [url, timeoutMs] of [...wanted].slice(0, MAX_URLS)) {
      const known = this.#followed.get(url);
      if (known !== undefined) {
        known.timeoutMs = timeoutMs;
        continue;
      }
      const followed: Followed = { timeoutMs, failures: 0, fault: null, askedMs: 0, busy: false, cancel: null };
      this.#followed.set(url, followed);
      void this.#fetch(url, followed);
    }
  }

  /** Why a set could not be read when it was last asked for, by its URL. */
  get faults(): ReadonlyMap<string, string> {
    return new Map([...this.#followed].flatMap(([url, { fault }]) => (fault === null ? [] : [[url, fault] as const])));
  }

  /** A token was signed with a key that is not in the set: perhaps there is a newer one. */
  want(url: string): void {
    const followed = this.#followed.get(url);
    if (followed !== undefined && !followed.busy && this.#options.clock.now() - followed.askedMs >= WANTED_MS) {
      followed.cancel?.();
      void this.#fetch(url, followed);
    }
  }

  async #fetch(url: string, followed: Followed): Promise<void> {
    const { clock, log, allowed, get = guardedGet } = this.#options;
    followed.busy = true;
    followed.askedMs = clock.now();
    let nextMs: number;
    try {
      const answer = await get(url, { allowed, timeoutMs: followed.timeoutMs, maxBytes: MAX_BYTES });
      // What cannot be read is no set: the last one stays.
      parseJwks(answer.body);
      followed.failures = 0;
      followed.fault = null;
      nextMs = refreshMs(answer.headers["cache-control"]);
      if (this.#followed.get(url) === followed && this.keySets.value.get(url) !== answer.body) {
        log.info("key set read", { url });
        this.keySets.set(new Map([...this.keySets.value, [url, answer.body]]));
      }
    } catch (error) {
      const { message, hint } = toEveryhopError(error);
      followed.fault = message;
      if (followed.failures === 0) {
        log.warn("a key set cannot be read; without one its tokens are refused", { url, error: message, hint });
      }
      nextMs = Math.min(RETRY_MS * 2 ** Math.min(followed.failures, 20), REFRESH_MS);
      followed.failures++;
    }
    followed.busy = false;
    if (this.#followed.get(url) === followed) {
      followed.cancel = clock.after(nextMs, () => void this.#fetch(url, followed));
    }
  }

  close(): void {
    for (const { cancel } of this.#followed.values()) {
      cancel?.();
    }
    this.#followed.clear();
  }
}

/** SPEC: RFC 9111 §5.2.2, kept within bounds: neither every second nor next year. */
function refreshMs(cacheControl: string | undefined): number {
  const seconds = /(?:^|[\s,])max-age=(\d{1,9})/.exec(cacheControl ?? "")?.[1];
  return seconds === undefined
    ? REFRESH_MS
    : Math.min(Math.max(Number(seconds) * 1_000, MIN_REFRESH_MS), MAX_REFRESH_MS);
}
