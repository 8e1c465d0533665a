/**
 * What a process of an isolated mesh sees of the file system: the machine's, with the state folder emptied but for what is its
 * own, temporary folders of its own, plain names of the other services, and a way to the mesh's folder where its user would
 * have none (a checkout below /root, or in a temporary folder of root's).
 */
import { readdirSync, statSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

export interface Room {
  /** Folders the process works with: kept reachable. */
  readonly reachable: readonly string[];
  readonly stateDir: string;
  /** Folders below the state folder that stay. */
  readonly own: readonly string[];
  readonly hostsFile: string;
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
}

/** A folder that is replaced by an empty one which leads on to `children` alone. */
export interface Screen {
  readonly folder: string;
  readonly mode: string;
  readonly children: readonly string[];
}

/** Private to each process: what one service leaves in /tmp, another never finds. */
const TEMPORARY = ["/tmp", "/var/tmp", "/dev/shm"];
/** Not shown where a folder's content has to be listed one by one. */
const HIDDEN = new Set([".git", ".everyhop"]);

/** What the planning looks at; a test has its own. */
export interface FolderFacts {
  /** Whether any user may pass through. */
  passable(folder: string): boolean;
  /** Whether any user may also see what is in it. */
  open(folder: string): boolean;
  list(folder: string): readonly string[];
}

export const realFolders: FolderFacts = {
  passable: (folder) => (statSync(folder).mode & 0o001) !== 0,
  open: (folder) => (statSync(folder).mode & 0o005) === 0o005,
  list: (folder) => readdirSync(folder),
};

/**
 * Which folders have to be replaced so that `reachable` can be reached by any user, `stateDir` stays where it is, and
 * temporary folders are private. Innermost first: a folder goes into an outer one with all that is mounted in it.
 */
export function planScreens(
  reachable: readonly string[],
  stateDir: string,
  folders: FolderFacts = realFolders,
): Screen[] {
  const screens = new Map<string, { mode: string; children: Set<string> }>();
  const screen = (folder: string, mode: string): Set<string> => {
    const found = screens.get(folder) ?? { mode, children: new Set<string>() };
    screens.set(folder, found);
    return found.children;
  };
  for (const folder of TEMPORARY) {
    screen(folder, "1777");
  }
  // Twice: a path may lie in a folder that a later one makes a screen of.
  for (const path of [...reachable, stateDir, ...reachable]) {
    const parts = path.split(sep).filter((part) => part !== "");
    for (let depth = 1; depth < parts.length; depth++) {
      const folder = sep + parts.slice(0, depth).join(sep);
      if (screens.has(folder) || !folders.passable(folder)) {
        screen(folder, "0755").add(parts[depth] ?? "");
      }
    }
    if (path !== stateDir && !folders.open(path)) {
      const children = screen(path, "0755");
      for (const name of folders.list(path)) {
        if (!HIDDEN.has(name)) {
          children.add(name);
        }
      }
    }
  }
  return [...screens]
    .map(([folder, { mode, children }]) => ({ folder, mode, children: [...children] }))
    .sort((a, b) => b.folder.length - a.folder.length);
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** Absolute paths of what the script runs: it runs as root with the service's PATH. */
export interface RoomTools {
  readonly mount: string;
  readonly mkdir: string;
  readonly cp: string;
  readonly setpriv: string;
}

/**
 * A shell script that makes the room in the mount namespace it runs in (as root), becomes the user without any right beyond
 * it, and runs its arguments. `stage` is an empty folder to build in. The pid stays the same throughout.
 */
export function roomScript(room: Room, screens: readonly Screen[], stage: string, tools: RoomTools): string {
  const { mount } = tools;
  const state: Screen = {
    folder: room.stateDir,
    mode: "0711",
    children: room.own.map((folder) => relative(room.stateDir, folder)),
  };
  const inner = screens.filter(({ folder }) => folder.length > room.stateDir.length);
  const outer = screens.filter(({ folder }) => folder.length <= room.stateDir.length);
  return [
    "set -e",
    "umask 022",
    `${mount} --make-rprivate /`,
    `${mount} --bind ${quote(room.hostsFile)} /etc/hosts`,
    ...[...inner, state, ...outer].flatMap((screen) => screenLines(screen, stage, tools)),
    `cd ${quote(room.cwd)}`,
    `exec ${tools.setpriv} ${dropRights(room).join(" ")} "$@"`,
    "",
  ].join("\n");
}

function screenLines({ folder, mode, children }: Screen, stage: string, { mount, mkdir, cp }: RoomTools): string[] {
  const lines = [
    `if [ -d ${quote(folder)} ]; then`,
    `${mount} -t tmpfs -o mode=${mode},size=64m tmpfs ${quote(stage)}`,
  ];
  for (const child of children) {
    const from = quote(join(folder, child));
    const to = quote(join(stage, child));
    lines.push(
      `${mkdir} -p ${quote(dirname(join(stage, child)))}`,
      `if [ -L ${from} ]; then ${cp} -P ${from} ${to}`,
      `elif [ -d ${from} ]; then ${mkdir} -p ${to}; ${mount} --rbind ${from} ${to}`,
      `elif [ -e ${from} ]; then : > ${to}; ${mount} --bind ${from} ${to}; fi`,
    );
  }
  return [...lines, `${mount} --move ${quote(stage)} ${quote(folder)}`, "fi"];
}

/** setpriv's arguments: the user, no groups, no capability now or ever, nothing from setuid programs; ends with us. */
export function dropRights({ uid, gid }: { readonly uid: number; readonly gid: number }): string[] {
  return [
    ...["--reuid", String(uid), "--regid", String(gid), "--clear-groups"],
    ...["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"],
    ...["--pdeathsig", "KILL"],
  ];
}
