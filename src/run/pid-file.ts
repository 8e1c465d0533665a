import { readFileSync } from "node:fs";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";

const POLL_MS = 200;
const MAX_PID = 2 ** 31 - 1;

/** The process id in `file`; null while it is missing or says none. Followed until `close`. */
export function watchPidFile(file: string, clock: Clock): { readonly pid: Cell<number | null>; close(): void } {
  const pid = new Cell<number | null>(readPid(file));
  let cancel = (): void => {};
  const poll = (): void => {
    cancel = clock.after(POLL_MS, () => {
      const next = readPid(file);
      if (next !== pid.value) {
        pid.set(next);
      }
      poll();
    });
  };
  poll();
  return { pid, close: () => cancel() };
}

function readPid(file: string): number | null {
  try {
    const text = readFileSync(file, "utf8").trim();
    const pid = /^\d{1,10}$/.test(text) ? Number(text) : 0;
    return pid >= 1 && pid <= MAX_PID ? pid : null;
  } catch {
    return null;
  }
}
