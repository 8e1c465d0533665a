/**
 * The resource files under some paths, followed as they change. Editors are allowed their ways: renaming over, writing in
 * pieces, emptying first, moving away and writing anew. What cannot be read keeps the text it had, with a fault beside it.
 */
import { type FSWatcher, watch as watchFolder } from "node:fs";
import { dirname } from "node:path";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import type { Issue } from "../core/base/errors.ts";
import { readStamped, type Scan, type Stamp, scanFiles } from "./scan-files.ts";

export interface FileSet {
  /** Text by path, sorted by path. */
  readonly files: ReadonlyMap<string, string>;
  /** What could not be read, and why; its last text is still in `files`, if it ever had one. */
  readonly faults: readonly Issue[];
}

export interface WatchedFiles {
  readonly state: Cell<FileSet>;
  close(): void;
}

export interface WatchFilesOptions {
  readonly clock: Clock;
  /** A file is taken once it has not changed for so long. */
  readonly settleMs?: number;
  /** A file that is gone or emptied must stay so for longer: a policy that vanishes for a moment must not open a door. */
  readonly vanishMs?: number;
  /** What is still being written after so long is left as it was, and the rest is taken. */
  readonly patienceMs?: number;
  /** Everything is looked at so often whatever the kernel reports: network folders report nothing. */
  readonly rescanMs?: number;
}

/** Starts with what is there now; `state.faults` says what could not be read. */
export function watchFiles(paths: readonly string[], options: WatchFilesOptions): WatchedFiles {
  return new Watch(paths, options);
}

/** What was taken of one path. */
interface Held {
  readonly stamp: Stamp;
  readonly text: string | null;
  readonly fault: Issue | null;
}

/** How one path looks on disk now. */
interface Sight {
  readonly stamp: Stamp;
  readonly fault: Issue | null;
}

/** A path that does not look as it did when it was taken (null: gone), and since when it looks as it does. */
interface Pending {
  readonly sight: Sight | null;
  readonly since: number;
}

class Watch implements WatchedFiles {
  readonly state: Cell<FileSet>;
  readonly #paths: readonly string[];
  readonly #clock: Clock;
  readonly #settleMs: number;
  readonly #vanishMs: number;
  readonly #patienceMs: number;
  readonly #rescanMs: number;
  readonly #kernel = new FolderWatches(() => this.#changed());
  readonly #held = new Map<string, Held>();
  #pending = new Map<string, Pending>();
  #pendingSince = 0;
  #cancelLook: (() => void) | null = null;
  #cancelRescan: () => void = () => {};
  #closed = false;

  constructor(paths: readonly string[], options: WatchFilesOptions) {
    this.#paths = paths;
    this.#clock = options.clock;
    this.#settleMs = options.settleMs ?? 30;
    this.#vanishMs = options.vanishMs ?? 200;
    this.#patienceMs = options.patienceMs ?? 500;
    this.#rescanMs = options.rescanMs ?? 2_000;
    const scan = scanFiles(paths);
    this.#kernel.follow(scan, paths);
    for (const [path, sight] of sightsOf(scan)) {
      this.#take(path, sight);
    }
    this.state = new Cell(this.#fileSet());
    this.#armRescan();
  }

  close(): void {
    this.#closed = true;
    this.#cancelRescan();
    this.#cancelLook?.();
    this.#kernel.close();
  }

  #armRescan(): void {
    this.#cancelRescan = this.#clock.after(this.#rescanMs, () => {
      this.#armRescan();
      this.#changed();
    });
  }

  /** Something may have changed: looks at once, to know since when, unless a look is due anyway. */
  #changed(): void {
    if (this.#cancelLook === null) {
      this.#look();
    }
  }

  #look(): void {
    if (this.#closed) {
      return;
    }
    const scan = scanFiles(this.#paths);
    this.#kernel.follow(scan, this.#paths);
    const now = this.#clock.now();
    const before = this.#pending;
    if (before.size === 0) {
      this.#pendingSince = now;
    }
    this.#pending = this.#differences(scan, before, now);
    const ready = [...this.#pending].filter(([path, pending]) => now - pending.since >= this.#waitFor(path, pending));
    if (ready.length === this.#pending.size || now - this.#pendingSince >= this.#patienceMs) {
      this.#takeAll(ready);
    }
    if (this.#pending.size > 0) {
      this.#cancelLook = this.#clock.after(this.#settleMs, () => {
        this.#cancelLook = null;
        this.#look();
      });
    }
  }

  #waitFor(path: string, { sight }: Pending): number {
    const hadText = (this.#held.get(path)?.text ?? "").trim() !== "";
    const vanished = sight === null || sight.fault !== null || sight.stamp.split(":")[2] === "0";
    return hadText && vanished ? this.#vanishMs : this.#settleMs;
  }

  #differences(scan: Scan, before: ReadonlyMap<string, Pending>, now: number): Map<string, Pending> {
    const sights = sightsOf(scan);
    const pending = new Map<string, Pending>();
    const add = (path: string, sight: Sight | null): void => {
      const last = before.get(path);
      const same = last !== undefined && last.sight?.stamp === sight?.stamp;
      pending.set(path, { sight, since: same ? last.since : now });
    };
    for (const [path, sight] of sights) {
      if (this.#held.get(path)?.stamp !== sight.stamp) {
        add(path, sight);
      }
    }
    for (const path of this.#held.keys()) {
      // What lies under a folder that cannot be looked into is unknown, which is not the same as gone.
      const hidden = scan.faults.some((fault) => path.startsWith(`${fault.path}/`));
      if (!sights.has(path) && !hidden) {
        add(path, null);
      }
    }
    return pending;
  }

  #takeAll(ready: readonly (readonly [string, Pending])[]): void {
    let changed = false;
    for (const [path, { sight }] of ready) {
      changed = this.#take(path, sight) || changed;
    }
    if (changed) {
      this.state.set(this.#fileSet());
    }
  }

  /** Takes one path as it is on disk; says whether that makes a difference. RACE: changed meanwhile, it stays pending. */
  #take(path: string, sight: Sight | null): boolean {
    const held = this.#held.get(path);
    if (sight === null) {
      this.#pending.delete(path);
      return this.#held.delete(path);
    }
    const read = sight.fault === null ? readStamped(path, sight.stamp) : sight.fault;
    if (read === null) {
      return false;
    }
    const next =
      typeof read === "string"
        ? { stamp: sight.stamp, text: read, fault: null }
        : { stamp: sight.stamp, text: held?.text ?? null, fault: read };
    this.#held.set(path, next);
    this.#pending.delete(path);
    return held?.text !== next.text || held?.fault?.message !== next.fault?.message;
  }

  #fileSet(): FileSet {
    const sorted = [...this.#held].sort(([a], [b]) => (a < b ? -1 : 1));
    return {
      files: new Map(sorted.flatMap(([path, { text }]) => (text === null ? [] : [[path, text] as const]))),
      faults: sorted.flatMap(([, { fault }]) => (fault === null ? [] : [fault])),
    };
  }
}

function sightsOf(scan: Scan): Map<string, Sight> {
  const sights = new Map<string, Sight>();
  for (const [path, stamp] of scan.files) {
    sights.set(path, { stamp, fault: null });
  }
  for (const { path, issue } of scan.faults) {
    sights.set(path, { stamp: `fault:${issue.message}`, fault: issue });
  }
  return sights;
}

/** One kernel watch per folder; for a path that is a file, on its folder, since a rename replaces the file itself. */
class FolderWatches {
  readonly #onChange: () => void;
  readonly #watchers = new Map<string, { readonly stamp: Stamp; readonly watcher: FSWatcher }>();

  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  follow(scan: Scan, paths: readonly string[]): void {
    const wanted = new Map(scan.folders);
    for (const path of paths) {
      if (!scan.folders.has(path)) {
        wanted.set(dirname(path), "");
      }
    }
    for (const [folder, { stamp, watcher }] of this.#watchers) {
      // A folder that was replaced has another stamp: the watch is on the old one.
      if (wanted.get(folder) !== stamp) {
        watcher.close();
        this.#watchers.delete(folder);
      }
    }
    for (const [folder, stamp] of wanted) {
      if (!this.#watchers.has(folder)) {
        this.#watch(folder, stamp);
      }
    }
  }

  close(): void {
    for (const { watcher } of this.#watchers.values()) {
      watcher.close();
    }
    this.#watchers.clear();
  }

  #watch(folder: string, stamp: Stamp): void {
    try {
      const watcher = watchFolder(folder, { persistent: false }, () => this.#onChange());
      // A watch that is not to be had, or fails (limits, file systems without), makes it only slower: the rescan sees all.
      watcher.on("error", () => {
        watcher.close();
        this.#watchers.delete(folder);
      });
      this.#watchers.set(folder, { stamp, watcher });
    } catch {}
  }
}
