import type { Clock } from "../../core/base/clock.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import type { Log } from "../../io/log.ts";
import type { IdentityCache } from "./cache.ts";
import { newKey } from "./csr.ts";
import type { NodeApi } from "./node-api.ts";
import { makeSvid } from "./own-identity.ts";

/** Requests in one call. SPEC: SPIRE's server takes no more. */
const BATCH = 500;

interface SignOptions {
  readonly cache: IdentityCache;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

/** Half of the lifetime, a tenth of that sooner or later, so that what was made together is not renewed together. */
export function renewAtMs(obtainedAtMs: number, notAfterMs: number, random: number): number {
  return obtainedAtMs + (notAfterMs - obtainedAtMs) * (0.45 + 0.1 * random);
}

/** Gets SVIDs for all entries that need one; returns how many the server would not sign. Rejects as the node API does. */
export async function signDue(options: SignOptions, api: NodeApi): Promise<number> {
  const { cache, log } = options;
  let failures = 0;
  const due = cache.due();
  for (let at = 0; at < due.length; at += BATCH) {
    const entries = due.slice(at, at + BATCH);
    const keys = await Promise.all(entries.map(newKey));
    const answers = await api.signX509(
      entries.map(({ id: entryId }, index) => ({ entryId, csr: keys[index]?.csr ?? new Uint8Array() })),
    );
    const signed = new Map<string, ReturnType<typeof accept>>();
    const failed = new Map<string, string>();
    for (const [index, entry] of entries.entries()) {
      const answer = answers[index];
      const key = keys[index];
      try {
        if (answer?.ok !== true || key === undefined) {
          throw new Error(answer?.ok === false ? answer.message : "the server gave no answer");
        }
        signed.set(entry.id, accept(options, entry, answer.chain, key.keyDer));
      } catch (error) {
        failed.set(entry.id, (error as Error).message);
        log.warn("no SVID for an entry", { entryId: entry.id, spiffeId: entry.spiffeId, error });
      }
    }
    cache.setSvids(signed, failed);
    failures += failed.size;
  }
  return failures;
}

/** INVARIANT: only what peers will accept is handed to a workload: of this entry's identity, from this trust domain. */
function accept(
  { cache, clock, random }: SignOptions,
  entry: RegistrationEntry,
  chain: readonly Uint8Array[],
  keyDer: Uint8Array,
) {
  const verified = verifyX509Svid(chain, (name) => cache.bundleOf(name), clock.now());
  if (!verified.ok || verified.id !== entry.spiffeId) {
    throw new Error(verified.ok ? `the server signed for \`${verified.id}\`` : verified.message);
  }
  const svid = makeSvid(chain, keyDer, entry.hint);
  const now = clock.now();
  return { svid, revision: entry.revision, renewAtMs: renewAtMs(now, svid.notAfter, random()) };
}
