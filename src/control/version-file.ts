/**
 * The version of the World, kept over a restart: sidecars and logs name versions, and none may mean two things. It may be lost:
 * then versions begin at 1 again, and nothing else is wrong.
 */
import { readFileSync, writeFileSync } from "node:fs";

/** The last version kept in `file`; 0 where there is none. */
export function lastVersion(file: string): number {
  try {
    const version = Number(readFileSync(file, "utf8"));
    return Number.isSafeInteger(version) && version >= 0 && version <= MAX_KEPT ? version : 0;
  } catch {
    return 0;
  }
}

/** Versions travel as 32 bits; there must be room to go on. */
const MAX_KEPT = 2 ** 31;

/** Errors: those of the file system. */
export function keepVersion(file: string, version: number): void {
  writeFileSync(file, String(version), { mode: 0o600 });
}
