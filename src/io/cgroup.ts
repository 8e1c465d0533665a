/**
 * Which control groups a process is in (Linux). The kernel writes /proc/PID/cgroup, with paths as *we* see them: a process in a cgroup
 * namespace of its own changes nothing about it. (/proc/PID/mountinfo is the process's own doing, and is not read for this.)
 * Source: cgroups(7), cgroup_namespaces(7).
 */
import { readFileSync, readlinkSync } from "node:fs";

export interface Cgroup {
  /** `` is version 2's one hierarchy; else version 1's controllers, or `name=systemd`. */
  readonly controllers: string;
  /** From the root of our cgroup namespace; begins with `/..` where the process is outside of it. */
  readonly path: string;
}

/** The kernel's number of the initial cgroup namespace (PROC_CGROUP_INIT_INO). */
const INITIAL_NAMESPACE = "cgroup:[4026531835]";

/** The text of /proc/PID/cgroup; empty where it is not to be had. Synchronous: it comes from the kernel's own memory. */
export function processCgroupText(pid: number | "self"): string {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, "utf8");
  } catch {
    return "";
  }
}

/** Reads that text: lines of `number:controllers:path`; what is no such line is left out. A path may hold colons. */
export function parseCgroups(text: string): Cgroup[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\d+:([^:]*):(\/.*)$/.exec(line);
    return match === null ? [] : [{ controllers: match[1] as string, path: match[2] as string }];
  });
}

/** Whether we see the machine's control groups from their root, as a process outside of containers does. */
export function inInitialCgroupNamespace(): boolean {
  try {
    return readlinkSync("/proc/self/ns/cgroup") === INITIAL_NAMESPACE;
  } catch {
    return false;
  }
}
