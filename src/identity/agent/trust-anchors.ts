import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import type { KeyStore } from "../../io/keys.ts";
import type { Log } from "../../io/log.ts";
import type { IdentityCache } from "./cache.ts";
import { loadAuthorities, saveAuthorities } from "./own-identity.ts";

interface TrustOptions {
  /** PEM file of the server's authorities. */
  readonly trustBundle: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** What the server is trusted by: kept as its bundle is, and saved for the next start. */
export async function trustAnchors({ trustBundle, clock, log }: TrustOptions, keys: KeyStore) {
  let trusted = await loadAuthorities(keys, trustBundle);
  const authorities = new Cell(trusted.authorities);
  let saved: Promise<void> = Promise.resolve();
  return {
    authorities,
    learn(next: readonly Uint8Array[]) {
      if (next.length > 0) {
        trusted = { authorities: next, savedAtMs: clock.now() };
        authorities.set(next);
        const save = trusted;
        saved = saved
          .then(() => saveAuthorities(keys, save))
          .catch((error) => log.error("cannot save the trust bundle", { error }));
      }
    },
    /** What was learned is on disk. */
    settled: () => saved,
    async refresh() {
      try {
        const now = await loadAuthorities(keys, trustBundle);
        if (now.savedAtMs > trusted.savedAtMs) {
          trusted = now;
          authorities.set(now.authorities);
          log.info("took new authorities from the trust bundle file", { authorities: now.authorities.length });
        }
      } catch (error) {
        log.debug("no newer trust bundle", { error });
      }
    },
  };
}

/** Tells of the own trust domain's authorities whenever they are others. */
export function followBundle(cache: IdentityCache, tell: (authorities: readonly Uint8Array[]) => void): void {
  let told = cache.bundle.x509Authorities;
  cache.changed.watch(() => {
    const { x509Authorities } = cache.bundle;
    if (x509Authorities !== told) {
      told = x509Authorities;
      tell(x509Authorities);
    }
  });
}
