/** Which folder a mesh keeps its state in, taken for one supervisor: after it, no other run of the same mesh is alive. */
import { existsSync, lstatSync, readlinkSync, realpathSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { EveryhopError } from "../../core/base/errors.ts";
import { reasonOf } from "./mesh-file.ts";
import { isAlive, recover, waitUntilGone } from "./recover.ts";
import {
  bootId,
  lockState,
  makeStateDir,
  type ProcessName,
  type RunRecord,
  readRecord,
  type StateLock,
} from "./state.ts";

export const STATE_LINK = ".everyhop";

export interface Claim {
  readonly stateDir: string;
  readonly lock: StateLock;
  /** `DIR/.everyhop`, where it is a link to the state folder. */
  readonly link: string | null;
  /** Processes of a killed run that were ended; null where there was no such run. */
  readonly recovered: number | null;
  /** Things the user should know. */
  readonly notes: readonly string[];
}

const ORPHAN_GRACE_MS = 10_000;

/**
 * Takes the state folder of the mesh in `dir`: `stateOption`, or `DIR/.everyhop`. What a killed run left is ended and
 * removed. Errors: `failed-precondition` where the mesh runs already, `storage-failed`.
 */
export async function claimState(dir: string, stateOption: string | null): Promise<Claim> {
  const place = join(dir, STATE_LINK);
  const stateDir = stateOption === null ? place : resolve(stateOption);
  const notes: string[] = [];
  let recovered = await settleEarlier(place, dir, stateDir, stateOption !== null, notes);
  makeStateDir(stateDir);
  const real = realpathSync(stateDir);
  const lock = await takeLock(real, dir);
  recovered = (await recover(real)) ?? recovered;
  return { stateDir: real, lock, link: stateOption === null ? null : linkTo(real, place, notes), recovered, notes };
}

/** Gives the folder up; the link goes, and a folder that had to make room for it comes back. */
export function releaseClaim({ link, lock }: Claim): void {
  if (link !== null) {
    removeLink(link);
  }
  lock.release();
}

const KEPT = ".kept";

/** Removes `DIR/.everyhop` where it is a link. */
export function removeLink(place: string): void {
  if (lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink() === true) {
    rmSync(place, { force: true });
    if (existsSync(`${place}${KEPT}`)) {
      renameSync(`${place}${KEPT}`, place);
    }
  }
}

/** Deals with what `DIR/.everyhop` is of an earlier run, where that is another folder than this run's. */
async function settleEarlier(
  place: string,
  dir: string,
  stateDir: string,
  needsLink: boolean,
  notes: string[],
): Promise<number | null> {
  const isLink = lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink();
  if (isLink === undefined || (!isLink && !needsLink)) {
    return null;
  }
  const earlier = resolve(dir, isLink ? readlinkSync(place) : place);
  let recovered: number | null = null;
  if (earlier !== stateDir && existsSync(earlier)) {
    const lock = await takeLock(earlier, dir);
    recovered = await recover(earlier);
    lock.release();
  }
  if (isLink) {
    tryTo(() => (needsLink ? rmSync(place) : removeLink(place)), notes);
  } else if (earlier !== stateDir) {
    tryTo(() => {
      renameSync(place, `${place}${KEPT}`);
    }, notes);
  }
  return recovered;
}

function linkTo(stateDir: string, place: string, notes: string[]): string | null {
  if (realpathOrNull(place) === stateDir) {
    return null;
  }
  const done = tryTo(() => symlinkSync(stateDir, place), []);
  if (!done) {
    notes.push(`\`${place}\` cannot be made: other commands find this mesh with \`--dir ${stateDir}\``);
  }
  return done ? place : null;
}

function tryTo(action: () => void, notes: string[]): boolean {
  try {
    action();
    return true;
  } catch (error) {
    notes.push(reasonOf(error));
    return false;
  }
}

export function realpathOrNull(path: string): string | null {
  try {
    return realpathSync(path);
  } catch {
    return null;
  }
}

/** Takes the lock; a supervisor whose launcher was killed is on its way out, and is waited for. */
async function takeLock(stateDir: string, dir: string): Promise<StateLock> {
  const lock = lockState(stateDir);
  if (lock !== null) {
    return lock;
  }
  const record = readRecord(stateDir);
  if (record !== null && (await isOrphan(record))) {
    const ended = await endSupervisor(record, ORPHAN_GRACE_MS);
    const second = ended ? lockState(stateDir) : null;
    if (second !== null) {
      return second;
    }
  }
  throw new EveryhopError(
    "failed-precondition",
    `the mesh of \`${dir}\` runs already (its state is in \`${stateDir}\`)`,
    {
      hint: `end it with \`everyhop down ${dir}\`, or see \`everyhop status --dir ${dir}\``,
    },
  );
}

async function isOrphan({ launcher, bootId: boot }: RunRecord): Promise<boolean> {
  return launcher !== null && boot === bootId() && !(await isAlive(launcher));
}

/**
 * Asks the supervisor to end its mesh and waits; after `graceMs` it is killed, and what it leaves is for `recover`. Resolves
 * to whether it is gone.
 */
export async function endSupervisor({ supervisor }: RunRecord, graceMs: number): Promise<boolean> {
  await signal(supervisor, "SIGTERM");
  if (await waitUntilGone([supervisor], graceMs)) {
    return true;
  }
  await signal(supervisor, "SIGKILL");
  return waitUntilGone([supervisor], graceMs);
}

async function signal(supervisor: ProcessName, name: NodeJS.Signals): Promise<void> {
  if (!(await isAlive(supervisor))) {
    return;
  }
  try {
    process.kill(supervisor.pid, name);
  } catch (error) {
    throw new EveryhopError("permission-denied", `cannot end process ${supervisor.pid}: ${reasonOf(error)}`, {
      hint: "run the command as the user who started the mesh",
      cause: error,
    });
  }
}
