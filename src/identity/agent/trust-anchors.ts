import { Cell } from "../../core/base/cell.ts";
import type { KeyStore } from "../../io/keys.ts";
import { type BootstrapOptions, bootstrapAuthorities, type TrustSource } from "./bootstrap.ts";
import type { IdentityCache } from "./cache.ts";
import { loadAuthorities, saveAuthorities, savedAuthorities, type TrustedAuthorities } from "./own-identity.ts";

interface TrustOptions extends BootstrapOptions {
  readonly trustBundle: TrustSource;
}

/** What the server is trusted by: kept as its bundle is, and saved for the next start. */
export async function trustAnchors(options: TrustOptions, keys: KeyStore) {
  const { trustBundle, trustDomain, clock, log } = options;
  let trusted = await firstAuthorities(options, keys);
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
      if (typeof trustBundle !== "string") {
        return;
      }
      try {
        const now = await loadAuthorities(keys, trustBundle, trustDomain);
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

async function firstAuthorities(options: TrustOptions, keys: KeyStore): Promise<TrustedAuthorities> {
  const { trustBundle, trustDomain, clock } = options;
  if (typeof trustBundle === "string") {
    return loadAuthorities(keys, trustBundle, trustDomain);
  }
  const saved = await savedAuthorities(keys);
  if (saved !== null) {
    return saved;
  }
  const first = { authorities: await bootstrapAuthorities(trustBundle, options), savedAtMs: clock.now() };
  // Held to from here on, be it that the agent ends before its first sync.
  await saveAuthorities(keys, first);
  return first;
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
