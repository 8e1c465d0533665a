/** Waits between attempts: `firstMs`, doubling, up to `maxMs`. */
export interface BackoffRange {
  readonly firstMs: number;
  readonly maxMs: number;
}

/**
 * The wait before attempt number `attempt` (0 is the first retry), with jitter so that many clients of one server do not come
 * back together: between half of the step and the whole of it. `random` is in [0, 1).
 */
export function backoffMs(attempt: number, range: BackoffRange, random: number): number {
  const step = Math.min(range.maxMs, range.firstMs * 2 ** Math.min(attempt, 30));
  return step / 2 + (step / 2) * random;
}
