const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Resolves with the reason when this process shall end: a signal, or (with `stdin`) the end of its standard input, which
 * means that its supervisor is gone. A second signal ends it the hard way. Keeps the process alive until then.
 */
export async function untilStopped({ stdin }: { readonly stdin: boolean }): Promise<string> {
  const hold = setInterval(() => {}, 3_600_000);
  const why = await new Promise<string>((resolve) => {
    for (const signal of SIGNALS) {
      process.once(signal, resolve);
    }
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
  process.stdin.destroy();
  return why;
}
