/** Names of users and groups, from the machine's own files; those of a directory service are not asked for. */
import { readFile, stat } from "node:fs/promises";

interface Names {
  readonly stamp: string;
  readonly byId: ReadonlyMap<number, string>;
}

const known = new Map<string, Names>();

export function userName(uid: number): Promise<string | null> {
  return nameIn("/etc/passwd", uid);
}

export function groupName(gid: number): Promise<string | null> {
  return nameIn("/etc/group", gid);
}

async function nameIn(file: string, id: number): Promise<string | null> {
  try {
    const { mtimeMs, ctimeMs, ino, size } = await stat(file);
    const stamp = `${ino}:${size}:${mtimeMs}:${ctimeMs}`;
    let names = known.get(file);
    if (names?.stamp !== stamp) {
      names = { stamp, byId: parseNames(await readFile(file, "utf8")) };
      known.set(file, names);
    }
    return names.byId.get(id) ?? null;
  } catch {
    return null;
  }
}

/** Both files have the name first and the number third; the first line of a number counts. Source: passwd(5), group(5). */
export function parseNames(text: string): Map<number, string> {
  const byId = new Map<number, string>();
  for (const line of text.split("\n")) {
    const [name, , number] = line.split(":");
    if (name !== undefined && number !== undefined && /^\d+$/.test(number) && !byId.has(Number(number))) {
      byId.set(Number(number), name);
    }
  }
  return byId;
}
