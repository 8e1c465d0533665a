/**
 * Judges what was saved. Each file stands for itself: one that is not valid is refused, and what it last said stays in force,
 * while the others go on. INVARIANT: a configuration that is not understood is refused with its place, never ignored.
 */
import type { Issue } from "../core/base/errors.ts";
import type { Mesh, PolicyReader, ReadPolicies } from "./policies.ts";

/** Texts that were found valid together, and what they say. */
export interface Accepted extends ReadPolicies {
  readonly files: ReadonlyMap<string, string>;
}

export interface Judgement {
  readonly accepted: Accepted;
  /** Errors of what was refused. */
  readonly refused: readonly Issue[];
}

export const NOTHING_ACCEPTED: Accepted = {
  files: new Map(),
  policies: [],
  issues: [],
  locate: ({ place }) => place,
};

/** Each trial reads everything: where more files changed at once, all of them are refused together. */
const MAX_TRIED = 50;

const isError = (issue: Issue): boolean => issue.severity === "error";

/** What a saved state is judged by. */
export interface Court {
  readonly mesh: Mesh;
  readonly reader: PolicyReader;
}

/** What is in force after `files` were saved, where `last` was in force before. */
export function judge(files: ReadonlyMap<string, string>, last: Accepted, court: Court): Judgement {
  const candidate = new Map(files);
  const refused: Issue[] = [];
  // Each turn takes at least one saved file back to what it said before, so this ends; the bound is for the reader.
  for (let turn = 0; turn <= files.size; turn++) {
    const read = inspect(candidate, last, court);
    const errors = read.issues.filter(isError);
    if (errors.length === 0) {
      return { accepted: read, refused };
    }
    refused.push(...errors);
    if (!takeBack(candidate, errors, last)) {
      return { accepted: oneByOne(files, last, court), refused };
    }
  }
  return { accepted: last, refused };
}

/** A fault that names only a file which did not change lies between two files: what is good is found by trying. */
function oneByOne(files: ReadonlyMap<string, string>, last: Accepted, court: Court): Accepted {
  const paths = new Set([...files.keys(), ...last.files.keys()]);
  const changed = [...paths].filter((path) => files.get(path) !== last.files.get(path));
  let accepted = last;
  for (const path of changed.length <= MAX_TRIED ? changed : []) {
    const candidate = new Map(accepted.files);
    const text = files.get(path);
    if (text === undefined) {
      candidate.delete(path);
    } else {
      candidate.set(path, text);
    }
    const read = inspect(candidate, accepted, court);
    if (!read.issues.some(isError)) {
      accepted = read;
    }
  }
  return accepted;
}

function inspect(files: ReadonlyMap<string, string>, last: Accepted, { mesh, reader }: Court): Accepted {
  return sameFiles(files, last.files) ? last : { files: new Map(files), ...reader.read(files, mesh) };
}

/** Puts the files with errors back to their last good text, or out where there is none. False: none can be. */
function takeBack(candidate: Map<string, string>, errors: readonly Issue[], last: Accepted): boolean {
  let changed = false;
  for (const file of new Set(errors.flatMap(({ file }) => (file === undefined ? [] : [file])))) {
    const good = last.files.get(file);
    if (good === undefined) {
      changed = candidate.delete(file) || changed;
    } else if (candidate.get(file) !== good) {
      candidate.set(file, good);
      changed = true;
    }
  }
  return changed;
}

export function sameFiles(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([path, text]) => b.get(path) === text);
}
