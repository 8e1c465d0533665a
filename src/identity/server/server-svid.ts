import { generateKeyPairSync } from "node:crypto";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import type { Bundle } from "../../core/spiffe/bundle.ts";
import { isDistrusted } from "../../core/spiffe/distrust.ts";
import { serverId, type TrustDomain } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import type { Authority } from "../authority/authority.ts";

export interface ServerSvid {
  readonly svid: Cell<X509Svid>;
  stop(): void;
}

export interface ServerSvidOptions {
  readonly authority: Authority;
  readonly trustDomain: TrustDomain;
  /** Our own bundle: where the authority that signed is tainted or taken out, the certificate is replaced at once. */
  readonly bundle: Cell<Bundle>;
  readonly clock: Clock;
  readonly onError: (error: unknown) => void;
}

/** After a failure. */
const RETRY_MS = 1_000;

/** The server's own identity, which its agents expect; a new key and certificate at half of each one's life. */
export async function keepServerSvid(options: ServerSvidOptions): Promise<ServerSvid> {
  const { authority, trustDomain, bundle, clock, onError } = options;
  const issue = async (): Promise<X509Svid> => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const spki = publicKey.export({ format: "der", type: "spki" });
    const id = serverId(trustDomain);
    const issued = await authority.issueX509Svid({ publicKey: { spki }, spiffeId: id, entryId: "server" });
    return {
      id,
      chain: issued.chain,
      keyDer: privateKey.export({ format: "der", type: "pkcs8" }),
      serial: issued.serial,
      notBefore: issued.notBeforeMs,
      notAfter: issued.notAfterMs,
      hint: "",
    };
  };
  const svid = new Cell(await issue());
  let stopped = false;
  let cancel = (): void => {};
  const schedule = (delayMs: number): void => {
    cancel();
    cancel = clock.after(delayMs, () => {
      issue().then(
        (next) => {
          if (!stopped) {
            svid.set(next);
            schedule(isDistrusted(next.chain, bundle.value, clock.now()) ? RETRY_MS : halfLife(next, clock.now()));
          }
        },
        (error: unknown) => {
          onError(error);
          schedule(stopped ? Number.MAX_SAFE_INTEGER : RETRY_MS);
        },
      );
    });
    if (stopped) {
      cancel();
    }
  };
  schedule(halfLife(svid.value, clock.now()));
  const unwatch = bundle.watch((next) => {
    if (isDistrusted(svid.value.chain, next, clock.now())) {
      schedule(0);
    }
  });
  return {
    svid,
    stop: () => {
      stopped = true;
      unwatch();
      cancel();
    },
  };
}

function halfLife({ notAfter }: X509Svid, now: number): number {
  return Math.max(0, (notAfter - now) / 2);
}
