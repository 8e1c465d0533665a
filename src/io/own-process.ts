/** What this process asks the kernel for itself (Linux). */
import koffi from "koffi";

const PR_SET_DUMPABLE = 4;

/**
 * From now on no process of the same user may read this one's memory or trace it, and it leaves no core file (root may and can
 * all of this). Where the kernel does not know it, nothing changes. Source: prctl(2).
 */
export function refuseInspection(): void {
  if (process.platform === "linux") {
    const prctl = koffi
      .load(null)
      .func("int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)");
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  }
}
