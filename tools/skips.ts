/**
 * Which skips are in order: test/skips.json lists the suites that may be skipped, for want of which peer, and why. Any other
 * skip hides something; in CI it fails.
 */
import type { Skip } from "./run-tests.ts";

/** One entry of test/skips.json. */
export interface AllowedSkip {
  /** The test file, from the project's root. */
  readonly suite: string;
  /** Names of test/peers.ts. */
  readonly needs: readonly string[];
  /** Why a machine may lack it. */
  readonly why: string;
}

export interface JudgedSkip extends Skip {
  /** Why it is not in order; null where it is. */
  readonly fault: string | null;
}

/** Judges each skip; `has` says whether this machine has a peer: a suite whose peers are here has no reason to skip. */
export function judgeSkips(
  skips: readonly Skip[],
  allowed: readonly AllowedSkip[],
  has: (peer: string) => boolean,
): JudgedSkip[] {
  return skips.map((skip) => ({ ...skip, fault: faultOf(skip, allowed, has) }));
}

function faultOf(skip: Skip, allowed: readonly AllowedSkip[], has: (peer: string) => boolean): string | null {
  const entry = allowed.find(({ suite }) => suite === skip.file);
  if (entry === undefined) {
    return "the suite is not in test/skips.json";
  }
  const needs = /^needs ([\w-]+(?:, [\w-]+)*)$/.exec(skip.reason)?.[1]?.split(", ");
  if (needs === undefined) {
    return "its reason names no peer (`needs NAME`)";
  }
  const other = needs.find((name) => !entry.needs.includes(name));
  if (other !== undefined) {
    return `test/skips.json does not let it go without ${other}`;
  }
  const present = needs.find(has);
  return present === undefined ? null : `${present} is on this machine`;
}

/** Entries of test/skips.json that name a suite which is not there. */
export function deadEntries(allowed: readonly AllowedSkip[], files: readonly string[]): AllowedSkip[] {
  return allowed.filter(({ suite }) => !files.includes(suite));
}
