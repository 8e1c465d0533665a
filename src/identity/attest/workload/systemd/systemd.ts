/**
 * Selectors of a systemd unit: `systemd:id:NAME`, from the process's control group, and `systemd:fragment_path:PATH`, the file that
 * the unit was read from, which systemd is asked for where an entry names one. No process can choose its unit.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { inInitialCgroupNamespace, parseCgroups } from "../../../../io/cgroup.ts";
import type { WorkloadAttestor } from "../attest.ts";
import { findUnit } from "./unit.ts";

export interface SystemdOptions {
  /** Properties of a unit as `Name=value` lines; default: systemctl's answer. */
  readonly show?: (unit: string) => Promise<string>;
  /** Whether control groups are seen from the machine's root. Default: as the kernel says. */
  readonly seesRoot?: () => boolean;
}

const PROPERTIES = "Id,FragmentPath,ControlGroup";
const TIMEOUT_MS = 5_000;
const MAX_OUTPUT_BYTES = 64 << 10;

export function systemdAttestor(options: SystemdOptions = {}): WorkloadAttestor {
  const { show = systemctlShow, seesRoot = inInitialCgroupNamespace } = options;
  return {
    kind: "systemd",
    async attest({ cgroups }, needed) {
      if (!seesRoot()) {
        throw new EveryhopError("failed-precondition", "the agent does not see the machine's control groups", {
          hint: "run the agent outside of containers, or in the host's cgroup namespace",
        });
      }
      const unit = findUnit(parseCgroups(cgroups));
      if (unit === null) {
        return [];
      }
      const selectors = [`systemd:id:${unit.id}`];
      if (needed("systemd:fragment_path:")) {
        const properties = parseProperties(await show(unit.id));
        if (properties.get("ControlGroup") !== unit.cgroup || properties.get("Id") !== unit.id) {
          throw new EveryhopError("failed-precondition", `systemd does not know \`${unit.cgroup}\` as \`${unit.id}\``);
        }
        const path = properties.get("FragmentPath") ?? "";
        if (path !== "") {
          selectors.push(`systemd:fragment_path:${path}`);
        }
      }
      return selectors;
    },
  };
}

/** Reads `Name=value` lines; the first of a name counts. */
export function parseProperties(text: string): Map<string, string> {
  const properties = new Map<string, string>();
  for (const line of text.split("\n")) {
    const equals = line.indexOf("=");
    if (equals > 0 && !properties.has(line.slice(0, equals))) {
      properties.set(line.slice(0, equals), line.slice(equals + 1));
    }
  }
  return properties;
}

const run = promisify(execFile);

async function systemctlShow(unit: string): Promise<string> {
  try {
    const { stdout } = await run("systemctl", ["show", `--property=${PROPERTIES}`, "--", unit], {
      timeout: TIMEOUT_MS,
      maxBuffer: MAX_OUTPUT_BYTES,
      env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin", LC_ALL: "C" },
    });
    return stdout;
  } catch (error) {
    throw new EveryhopError("unavailable", `systemctl does not say where \`${unit}\` comes from`, { cause: error });
  }
}
