import { generateKeyPairSync } from "node:crypto";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
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
  readonly clock: Clock;
  readonly onError: (error: unknown) => void;
}

/** After a failure. */
const RETRY_MS = 1_000;

/** The server's own identity, which its agents expect; a new key and certificate at half of each one's life. */
export async function keepServerSvid({
  authority,
  trustDomain,
  clock,
  onError,
}: ServerSvidOptions): Promise<ServerSvid> {
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
    cancel = clock.after(delayMs, () => {
      issue().then(
        (next) => {
          if (!stopped) {
            svid.set(next);
            schedule(halfLife(next, clock.now()));
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
  return {
    svid,
    stop: () => {
      stopped = true;
      cancel();
    },
  };
}

function halfLife({ notAfter }: X509Svid, now: number): number {
  return Math.max(0, (notAfter - now) / 2);
}
