/**
 * What lies in the repository belongs to everyone who clones it: no names of one machine's folders or of one network's
 * registries, and a lockfile that leaves the registry to the one who installs.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";

/** Written in two halves, so that this file does not find itself. */
const FORBIDDEN: readonly (readonly [string, string])[] = [
  ["/wo" + "rk/", "a path of one machine"],
  ["/tmp/bash" + "_jobs", "a path of one machine"],
  ["registry.np" + "mjs", "a registry's host"],
  ["registry.ya" + "rnpkg", "a registry's host"],
  ["proxy.go" + "lang", "a registry's host"],
  ["files.python" + "hosted", "a registry's host"],
  ["pypi.o" + "rg/simple", "a registry's host"],
  ["deb.deb" + "ian.org", "a registry's host"],
];

/** `file:line: what` for every forbidden word in one file's text. */
export function checkWords(file: string, text: string): string[] {
  const found: string[] = [];
  for (const [word, why] of FORBIDDEN) {
    for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, at + 1)) {
      found.push(`${file}:${text.slice(0, at).split("\n").length}: \`${word}\` is ${why}`);
    }
  }
  return found;
}

interface LockedPackage {
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/**
 * Every package pinned by its hash, none by a host (`.npmrc` sets omit-lockfile-registry-resolved to keep it so), and none
 * missing: `npm ci` refuses a lockfile without some other platform's optional package, which a registry may not have.
 */
export function checkLockfile(text: string): string[] {
  const found: string[] = [];
  const packages = (JSON.parse(text) as { packages?: Record<string, LockedPackage> }).packages ?? {};
  for (const [name, entry] of Object.entries(packages)) {
    for (const needed of Object.keys({ ...entry.dependencies, ...entry.optionalDependencies })) {
      if (!isLocked(packages, name, needed)) {
        found.push(`package-lock.json: \`${needed}\`, which \`${name}\` asks for, is missing: \`npm ci\` will refuse`);
      }
    }
    if (entry.resolved !== undefined) {
      found.push(
        `package-lock.json: \`${name}\` names \`${entry.resolved}\`: run \`npm install\` with this folder's .npmrc`,
      );
    }
    if (name !== "" && entry.link !== true && entry.integrity === undefined) {
      found.push(`package-lock.json: \`${name}\` has no integrity hash`);
    }
  }
  return found;
}

/** Whether `needed` is found from `name`'s folder upwards, as Node resolves it. */
function isLocked(packages: Readonly<Record<string, LockedPackage>>, name: string, needed: string): boolean {
  for (let folder = name; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf("/node_modules/")))) {
    if (Object.hasOwn(packages, `${folder === "" ? "" : `${folder}/`}node_modules/${needed}`)) {
      return true;
    }
    if (folder === "") {
      return false;
    }
  }
}

const LARGEST = 2_000_000;

function main(root: string): number {
  const list = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: root });
  const files = list.toString().split("\0").filter(Boolean);
  const faults = checkLockfile(readFileSync(`${root}/package-lock.json`, "utf8"));
  for (const file of files) {
    const stat = statSync(`${root}/${file}`, { throwIfNoEntry: false });
    if (stat?.isFile() && stat.size < LARGEST) {
      faults.push(...checkWords(file, readFileSync(`${root}/${file}`, "latin1")));
    }
  }
  for (const fault of faults) {
    console.error(fault);
  }
  console.log(
    `repository: ${files.length} files, ${faults.length === 0 ? "nothing foreign" : `${faults.length} faults`}`,
  );
  return faults.length === 0 ? 0 : 1;
}

if (import.meta.main) {
  process.exitCode = main(process.cwd());
}
