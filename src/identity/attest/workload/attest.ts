import { EveryhopError, toEveryhopError } from "../../../core/base/errors.ts";
import { type Selector, selectorFault } from "../../../core/entries/selector.ts";
import type { Log } from "../../../io/log.ts";
import { changeBetween, confirm, type Observation, observe, type ProcessReference } from "./observe.ts";

/** One way to say what a process is. Several run side by side; what they say is put together. */
export interface WorkloadAttestor {
  readonly kind: string;
  /**
   * Selectors as `type:value`; none where the process is not of its world (no container, no unit). `needed` says whether any entry
   * asks for selectors that begin so: dear ones may be left out. Bounds its own work. Errors: any, which leaves it out.
   */
  attest(process: Observation, needed: (prefix: string) => boolean): Promise<readonly string[]>;
}

export interface Attestation {
  /** Sorted, each once. */
  readonly selectors: readonly Selector[];
  readonly process: Observation;
  /** How each attestor fared, in their order. */
  readonly outcomes: readonly AttestorOutcome[];
}

export interface AttestorOutcome {
  readonly kind: string;
  /** Why its selectors are not there; null where it answered. */
  readonly error: EveryhopError | null;
  /** What it found. */
  readonly selectors: readonly Selector[];
}

/** More selectors than this of one attestor are no workload's: the rest is left out. */
const MAX_SELECTORS = 2_000;

/**
 * Attests a process. INVARIANT: what is said holds for one process image: it is looked at before and after, and a process
 * that exits, becomes another program or changes its user, groups, control groups or parent in between gets nothing.
 * An attestor that fails is left out (entries that ask for its selectors do not match); `count` hears how each fared. Errors: `not-found` where the process
 * is gone, `permission-denied` where it changed, `unavailable` where every attestor failed.
 */
export async function attestWorkload(
  reference: ProcessReference,
  attestors: readonly WorkloadAttestor[],
  needed: (prefix: string) => boolean,
  log: Log,
  count: (kind: string, good: boolean) => void = () => {},
): Promise<Attestation> {
  const process = observe(reference);
  const results = await Promise.allSettled(attestors.map(async (attestor) => attestor.attest(process, needed)));
  const outcomes = results.map((result, index): AttestorOutcome => {
    const kind = attestors[index]?.kind ?? "";
    count(kind, result.status === "fulfilled");
    if (result.status === "rejected") {
      const error = toEveryhopError(result.reason);
      log.warn("a workload attestor failed", { attestor: kind, pid: process.pid, error, hint: error.hint });
      return { kind, error, selectors: [] };
    }
    // A path of absurd length is no selector that an entry could have.
    const good = result.value.slice(0, MAX_SELECTORS).filter((selector) => selectorFault(selector) === null);
    return { kind, error: null, selectors: good as Selector[] };
  });
  confirm(reference, process);
  if (outcomes.every(({ error }) => error !== null)) {
    const reasons = outcomes.map(({ kind, error }) => `${kind}: ${error?.message}`).join("; ");
    throw new EveryhopError("unavailable", `every workload attestor failed: ${reasons}`);
  }
  return attestationOf(process, outcomes);
}

function attestationOf(process: Observation, outcomes: readonly AttestorOutcome[]): Attestation {
  return { selectors: [...new Set(outcomes.flatMap(({ selectors }) => selectors))].sort(), process, outcomes };
}

/**
 * `now`, with what `before` says in place of attestors that cannot be asked this time: a kubelet that is away for a moment takes no
 * identity from a process that it vouched for. Both have to be of one unchanged process; an attestor that answers "no" is heard.
 */
export function withEarlier(now: Attestation, before: Attestation): Attestation {
  if (changeBetween(before.process, now.process) !== null) {
    return now;
  }
  const outcomes = now.outcomes.map((outcome) => {
    const earlier = before.outcomes.find(({ kind }) => kind === outcome.kind);
    const away = outcome.error?.code === "unavailable";
    return !away || earlier === undefined ? outcome : { ...outcome, selectors: earlier.selectors };
  });
  return attestationOf(now.process, outcomes);
}
