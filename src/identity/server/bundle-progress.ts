import type { BundleProgressDocument } from "../../core/api/admin.ts";
import type { Clock } from "../../core/base/clock.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { Bundles } from "./bundles.ts";
import type { Registry } from "./registry.ts";

/** Remembers which bundle each agent said that it serves: a key that not everyone knows should not sign yet. */
export class BundleProgress {
  readonly #registry: Registry;
  readonly #bundles: Bundles;
  readonly #clock: Clock;
  readonly #served = new Map<SpiffeId, bigint>();

  constructor({ registry, bundles, clock }: { registry: Registry; bundles: Bundles; clock: Clock }) {
    this.#registry = registry;
    this.#bundles = bundles;
    this.#clock = clock;
    registry.watch((change) => {
      if (change.kind === "node" && change.node === null) {
        this.#served.delete(change.id);
      }
    });
  }

  /** SPIRE's agents say nothing (0). */
  saw(agent: SpiffeId, sequence: bigint): void {
    if (sequence > 0n) {
      this.#served.set(agent, sequence);
    }
  }

  document(): BundleProgressDocument {
    const { sequence } = this.#bundles.own.value;
    const now = this.#clock.now();
    const agents = this.#registry
      .nodes()
      .filter(({ banned, expiresAt }) => !banned && expiresAt > now)
      .map(({ id }) => {
        const served = this.#served.get(id);
        return served === undefined
          ? { spiffeId: id, sequence: null, current: null }
          : { spiffeId: id, sequence: served.toString(), current: served >= sequence };
      });
    return { sequence: sequence.toString(), agents };
  }
}
