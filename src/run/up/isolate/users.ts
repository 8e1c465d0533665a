/** Users of an isolated mesh: two for each service, one for its process, one for its sidecar. */
import { readFileSync } from "node:fs";
import { configError, type Issue } from "../../../core/base/errors.ts";
import type { MeshFile } from "../mesh-file.ts";

/** Above what distributions, systemd and container runtimes give out, below what some tools take for negative. */
const FIRST_UID = 1_900_000_000;
const BLOCK = 1_000;
const BLOCKS = 100_000;

export interface ServiceUsers {
  readonly uid: number;
  readonly gid: number;
  readonly sidecarUid: number;
}

/** Chooses users; `user` of the mesh file is a name or a number of the machine's. Errors: `config-invalid` with places. */
export function chooseUsers(
  mesh: MeshFile,
  random: () => number = Math.random,
  passwd: () => string = () => readFileSync("/etc/passwd", "utf8"),
): ReadonlyMap<string, ServiceUsers> {
  const base = FIRST_UID + Math.floor(random() * BLOCKS) * BLOCK;
  const issues: Issue[] = [];
  const users = new Map<string, ServiceUsers>();
  const taken = new Map<number, string>();
  mesh.services.forEach(({ name, user }, index) => {
    const sidecarUid = base + 2 * index + 1;
    const own = user === null ? { uid: base + 2 * index, gid: base + 2 * index } : findUser(user, passwd());
    const fault =
      own === null
        ? `there is no user \`${user}\` on this machine`
        : own.uid === 0
          ? "root would be held by nothing"
          : taken.has(own.uid)
            ? `user \`${user}\` is already \`${taken.get(own.uid)}\`'s`
            : null;
    if (own === null || fault !== null) {
      const place = mesh.document.place(["services", name, "user"]);
      const hint = "leave `user` out to give the service a user of its own";
      issues.push({ code: "config-invalid", severity: "error", message: fault ?? "", hint, ...place });
    } else {
      taken.set(own.uid, name);
      users.set(name, { ...own, sidecarUid });
    }
  });
  if (issues.length > 0) {
    throw configError(issues);
  }
  return users;
}

/** Source: passwd(5). A number need not be in it. */
function findUser(user: string, passwd: string): { readonly uid: number; readonly gid: number } | null {
  const isNumber = /^\d+$/.test(user);
  for (const line of passwd.split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (uid !== undefined && gid !== undefined && (isNumber ? uid === user : name === user)) {
      return { uid: Number(uid), gid: Number(gid) };
    }
  }
  return isNumber ? { uid: Number(user), gid: Number(user) } : null;
}
