import { formatDuration } from "../../core/base/duration.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Ceilings, Intent } from "../intent/intent.ts";

const BURST_SECONDS = 10;
/**
 * CAs below ours an hour: each can sign what stands in no log of ours. A fleet needs many at once all the same: where a root is
 * tainted every server below it comes for another one, and where CAs live for minutes they come often.
 */
const DOWNSTREAM_BURST = 500;
const DOWNSTREAM_PER_SECOND = DOWNSTREAM_BURST / 3_600;

/** Errors: `permission-denied` where a lifetime is over its ceiling, `failed-precondition` where nothing valid would come out. */
export function refuseTimes(intent: Exclude<Intent, { kind: "x509-csr" }>, ceilings: Ceilings, now: number): void {
  const { notBeforeMs, notAfterMs } = intent;
  const most = {
    "x509-svid": ceilings.maxX509SvidTtlMs,
    "jwt-svid": ceilings.maxJwtSvidTtlMs,
    "x509-ca": ceilings.maxCaTtlMs,
  }[intent.kind];
  if (notBeforeMs % 1_000 !== 0 || notAfterMs % 1_000 !== 0) {
    throw new EveryhopError("invalid-argument", "times are in whole seconds");
  }
  if (notAfterMs <= now) {
    throw new EveryhopError("failed-precondition", "nothing can be signed that is not valid any more");
  }
  if (notAfterMs - now > most) {
    const asked = formatDuration(notAfterMs - now);
    throw new EveryhopError(
      "permission-denied",
      `a lifetime of ${asked} is over the signer's ceiling of ${formatDuration(most)}`,
      {
        hint: "the block `signer` of the server's configuration has the ceilings",
      },
    );
  }
}

/** So many a second, with a burst. */
class Bucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #left: number;
  #at: number | null = null;

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#left = burst;
  }

  take(now: number): boolean {
    const passed = Math.max(0, now - (this.#at ?? now)) / 1_000;
    this.#at = now;
    this.#left = Math.min(this.#burst, this.#left + passed * this.#perSecond);
    if (this.#left < 1) {
      return false;
    }
    this.#left -= 1;
    return true;
  }
}

/** How fast anything is signed at most. */
export class Rates {
  readonly #svids: Bucket;
  readonly #downstream = new Bucket(DOWNSTREAM_PER_SECOND, DOWNSTREAM_BURST);

  constructor({ maxPerSecond }: Ceilings) {
    this.#svids = new Bucket(maxPerSecond, maxPerSecond * BURST_SECONDS);
  }

  /** Errors: `resource-exhausted`. */
  take(what: "svid" | "downstream", now: number): void {
    const bucket = what === "svid" ? this.#svids : this.#downstream;
    if (!bucket.take(now)) {
      throw new EveryhopError("resource-exhausted", `the signer was asked for more than its ceiling of ${what}s`, {
        hint: "`signer: {maxPerSecond}` in the server's configuration raises it, if this many are meant",
      });
    }
  }
}
