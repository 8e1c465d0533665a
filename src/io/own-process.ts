/** What this process asks the kernel for itself (Linux). */
import koffi from "koffi";

const PR_SET_PDEATHSIG = 1;
const PR_SET_DUMPABLE = 4;
const SIGKILL = 9;

/**
 * From now on no process of the same user may read this one's memory or trace it, and it leaves no core file (root may and can
 * all of this). Where the kernel does not know it, nothing changes. Source: prctl(2).
 */
export function refuseInspection(): void {
  prctl(PR_SET_DUMPABLE, 0);
}

/**
 * Who kills the launcher that waits for us (`pid`) kills us: to those who started it, it is this process. Nothing changes where
 * another is our parent. Source: PR_SET_PDEATHSIG in prctl(2).
 */
export function dieWithLauncher(pid: string | undefined): void {
  if (pid !== undefined && Number(pid) === process.ppid) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // RACE: it may have gone before the kernel was asked.
    if (process.ppid !== Number(pid)) {
      process.kill(process.pid, "SIGKILL");
    }
  }
}

function prctl(option: number, value: number): void {
  if (process.platform === "linux") {
    const call = koffi
      .load(null)
      .func("int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)");
    call(option, value, 0, 0, 0);
  }
}
