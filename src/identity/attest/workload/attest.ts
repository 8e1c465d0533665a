import { toEveryhopError } from "../../../core/base/errors.ts";
import { type Selector, selectorFault } from "../../../core/entries/selector.ts";
import type { Log } from "../../../io/log.ts";
import { confirm, type Observation, observe, type ProcessReference } from "./observe.ts";

/** One way to say what a process is. Several run side by side; what they say is put together. */
export interface WorkloadAttestor {
  readonly kind: string;
  /** Selectors as `type:value`. `needed` says whether any entry asks for selectors that begin so: dear ones may be left out. */
  attest(process: Observation, needed: (prefix: string) => boolean): Promise<readonly string[]>;
}

export interface Attestation {
  /** Sorted, each once. */
  readonly selectors: readonly Selector[];
  readonly process: Observation;
}

/**
 * Attests a process. INVARIANT: what is said holds for one process image: it is looked at before and after, and a process
 * that exits, becomes another program or changes its user, groups or parent in between gets nothing.
 * An attestor that fails is left out (entries that ask for its selectors do not match). Errors: `not-found` where the process
 * is gone, `permission-denied` where it changed, `unavailable` where every attestor failed.
 */
export async function attestWorkload(
  reference: ProcessReference,
  attestors: readonly WorkloadAttestor[],
  needed: (prefix: string) => boolean,
  log: Log,
): Promise<Attestation> {
  const process = observe(reference);
  const results = await Promise.allSettled(attestors.map((attestor) => attestor.attest(process, needed)));
  const selectors = new Set<Selector>();
  let failures = 0;
  for (const [index, result] of results.entries()) {
    if (result.status === "fulfilled") {
      for (const selector of result.value) {
        // A path of absurd length is no selector that an entry could have.
        if (selectorFault(selector) === null) {
          selectors.add(selector as Selector);
        }
      }
    } else {
      failures += 1;
      log.warn("a workload attestor failed", {
        attestor: attestors[index]?.kind,
        pid: process.pid,
        error: result.reason,
      });
    }
  }
  confirm(reference, process);
  if (failures === attestors.length) {
    const reason = results[0]?.status === "rejected" ? results[0].reason : "no attestor";
    throw toEveryhopError(reason);
  }
  return { selectors: [...selectors].sort(), process };
}
