import type { ServicePlace } from "../exec.ts";
import { dropRights } from "./room.ts";
import { findTool } from "./tools.ts";

/** What goes before a command to run it in a service's namespaces, as its user, with no rights beyond it. */
export function enterRoom({ process, cwd, isolated }: ServicePlace): string[] {
  const tool = (name: string): string => findTool(name) ?? name;
  const user = isolated ?? { uid: 65_534, gid: 65_534 };
  return [
    ...[tool("nsenter"), "-t", String(process.pid), "-n", "-m", "--"],
    ...[tool("sh"), "-c", 'cd "$1" && shift && exec "$@"', "sh", cwd],
    ...[tool("setpriv"), ...dropRights(user)],
  ];
}
