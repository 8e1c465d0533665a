/** Which systemd unit a process belongs to, by its control group: the rule of systemd's own GetUnitByPID. */
import type { Cgroup } from "../../../../io/cgroup.ts";

const UNIT = /^[A-Za-z0-9:_.\\@-]{1,249}\.(?:service|scope|socket|mount|swap)$/;

/**
 * The unit's id, and the path of its own control group; null where it is in none. The outermost unit counts: what lies below is
 * the unit's own to name (`Delegate=`), and so is what lies below a user's manager, `user@1000.service`.
 */
export function findUnit(cgroups: readonly Cgroup[]): { readonly id: string; readonly cgroup: string } | null {
  const path = (
    cgroups.find(({ controllers }) => controllers === "name=systemd") ??
    cgroups.find(({ controllers }) => controllers === "")
  )?.path;
  const segments = path?.split("/").slice(1) ?? [];
  for (const [index, segment] of segments.entries()) {
    const name = unescapeName(segment);
    if (name.endsWith(".slice")) {
      continue;
    }
    return UNIT.test(name) ? { id: name, cgroup: `/${segments.slice(0, index + 1).join("/")}` } : null;
  }
  return null;
}

/** A unit whose name would clash with a file of the kernel's has an underscore before it. Source: systemd, cg_unescape. */
function unescapeName(segment: string): string {
  return segment.startsWith("_") ? segment.slice(1) : segment;
}
