/** Ports for the processes of a mesh on this machine. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { EveryhopError } from "../../core/base/errors.ts";

/** Below the range from which kernels give ports to outgoing connections, so that none is taken between choice and use. */
const FIRST = 20_000;
const FALLBACK_LAST = 32_000;
const ATTEMPTS = 2_000;

/** `count` different ports of `host` that nobody listens on now, none of them in `taken`. */
export async function freePorts(
  count: number,
  host: string,
  taken: ReadonlySet<number>,
  random: () => number = Math.random,
): Promise<number[]> {
  const last = lastPort();
  const found: number[] = [];
  for (let attempt = 0; found.length < count; attempt++) {
    if (attempt > ATTEMPTS) {
      throw new EveryhopError("resource-exhausted", `no free ports between ${FIRST} and ${last} on ${host}`);
    }
    const port = FIRST + Math.floor(random() * (last - FIRST));
    if (!taken.has(port) && !found.includes(port) && (await portFault(host, port)) === null) {
      found.push(port);
    }
  }
  return found;
}

/** Why `port` cannot be listened on, or null where it can. */
export function portFault(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", ({ code, message }: NodeJS.ErrnoException) =>
      resolve(code === "EADDRINUSE" ? "is in use" : code === "EACCES" ? "needs more rights than you have" : message),
    );
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve(null)));
  });
}

function lastPort(): number {
  try {
    const first = Number(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split(/\s+/)[0]);
    return first > FIRST + 1_000 ? first - 1 : FALLBACK_LAST;
  } catch {
    return FALLBACK_LAST;
  }
}

const LISTEN = "0A";

/**
 * Whether anything listens on TCP `port` in the network namespace of process `pid`. Read from the kernel's table: a probe
 * by connecting would be a connection that the service sees. Source: proc(5), /proc/net/tcp.
 */
export async function listensOn(port: number, pid: number | "self"): Promise<boolean> {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (const name of ["tcp", "tcp6"]) {
    const text = await readFile(`/proc/${pid}/net/${name}`, "utf8").catch(() => "");
    for (const line of text.split("\n").slice(1)) {
      const [, local, , state] = line.trim().split(/\s+/);
      if (state === LISTEN && local?.endsWith(wanted) === true) {
        return true;
      }
    }
  }
  return false;
}
