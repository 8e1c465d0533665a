import { backoffMs } from "../../core/base/backoff.ts";
import type { Clock } from "../../core/base/clock.ts";
import type { Log } from "../../io/log.ts";
import type { MakeProof } from "../attest/node/proof.ts";
import { newKey } from "./csr.ts";
import { attestationError } from "./failure.ts";
import type { NodeApi } from "./node-api.ts";
import { makeSvid, type OwnIdentity } from "./own-identity.ts";

/** How long a server that does not answer is waited for before the agent gives up. */
const JOIN_PATIENCE_MS = 60_000;
const RETRY = { firstMs: 200, maxMs: 5_000 };

export interface JoinOptions {
  readonly api: NodeApi;
  readonly prove: MakeProof;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

/**
 * Proves the node to the server and gets the agent's SVID. Errors: `unauthenticated` where the server refuses the proof,
 * `unavailable` where it did not answer for a minute.
 */
export async function join(options: JoinOptions): Promise<OwnIdentity> {
  const { api, prove, clock, random, log } = options;
  const giveUpAt = clock.now() + JOIN_PATIENCE_MS;
  for (let attempt = 0; ; attempt++) {
    const { keyDer, csr } = await newKey();
    const proof = await prove();
    try {
      const { chain, reattestable } = await api.attest(proof, csr);
      return { svid: makeSvid(chain, keyDer), obtainedAtMs: clock.now(), reattestable };
    } catch (thrown) {
      const { retry, error } = attestationError(thrown);
      const waitMs = backoffMs(attempt, RETRY, random());
      if (!retry || clock.now() + waitMs > giveUpAt) {
        throw error;
      }
      log.info("waiting for the server", { reason: error.message, waitMs: Math.round(waitMs) });
      await new Promise<void>((resolve) => void clock.after(waitMs, resolve));
    } finally {
      await proof.close?.();
    }
  }
}
