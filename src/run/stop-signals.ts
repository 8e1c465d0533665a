const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface StopOptions {
  /** Also stop when standard input ends: the supervisor that holds its other end is gone. */
  readonly stdin: boolean;
  /** Stops waiting: nothing more is held, and the promise resolves. */
  readonly cancel?: AbortSignal;
}

/**
 * Resolves with the reason when this process shall end. A second signal ends it the hard way. Keeps the process alive until
 * then.
 */
export async function untilStopped({ stdin, cancel }: StopOptions): Promise<string> {
  const hold = setInterval(() => {}, 3_600_000);
  const why = await new Promise<string>((resolve) => {
    for (const signal of SIGNALS) {
      process.once(signal, resolve);
    }
    cancel?.addEventListener("abort", () => resolve("cancelled"), { once: true });
    if (stdin) {
      const gone = (): void => resolve("standard input closed");
      process.stdin.once("end", gone).once("close", gone).once("error", gone);
      process.stdin.resume();
    }
  });
  for (const signal of SIGNALS) {
    process.removeAllListeners(signal);
  }
  clearInterval(hold);
  if (stdin) {
    process.stdin.destroy();
  }
  return why;
}
