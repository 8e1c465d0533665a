import type { Clock } from "../core/base/clock.ts";

/** The machine's clock. Timers do not keep a process alive. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, fire) {
    // setTimeout holds at most 2^31-1 ms; a longer wait is taken in steps.
    const step = Math.min(Math.max(0, delayMs), 2_147_483_647);
    let cancel = (): void => clearTimeout(timer);
    const timer = setTimeout(() => {
      if (delayMs > step) {
        cancel = systemClock.after(delayMs - step, fire);
      } else {
        fire();
      }
    }, step);
    timer.unref();
    return () => cancel();
  },
};
