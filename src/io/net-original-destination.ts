/** Where a connection wanted to go before the kernel redirected it to us: SO_ORIGINAL_DST. Linux. */
import type { Socket } from "node:net";
import koffi from "koffi";
import type { Address } from "./net.ts";

const SOL_IP = 0;
const SO_ORIGINAL_DST = 80;
const SOL_IPV6 = 41;
const IP6T_SO_ORIGINAL_DST = 80;

type Getsockopt = (fd: number, level: number, name: number, value: Buffer, length: number[]) => number;
let getsockopt: Getsockopt | null = null;

function option(fd: number, level: number, name: number, size: number): Buffer | null {
  getsockopt ??= koffi
    .load(null)
    .func("int getsockopt(int fd, int level, int name, _Out_ void *val, _Inout_ uint32_t *len)") as Getsockopt;
  const value = Buffer.alloc(size);
  const length = [size];
  return getsockopt(fd, level, name, value, length) === 0 ? value.subarray(0, length[0]) : null;
}

/**
 * The original destination of an accepted connection, or null where it was not redirected. Call it in the accept callback.
 * RACE: where a NAT table is loaded, a connection that was *not* redirected gives the listener's own address: the caller
 * refuses destinations that are its own listeners.
 */
export function originalDestination(socket: Socket): Address | null {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0 || process.platform !== "linux") {
    return null;
  }
  if (socket.remoteFamily === "IPv4" || socket.remoteAddress?.startsWith("::ffff:") === true) {
    const value = option(fd, SOL_IP, SO_ORIGINAL_DST, 16);
    return value === null ? null : { host: value.subarray(4, 8).join("."), port: value.readUInt16BE(2) };
  }
  const value = option(fd, SOL_IPV6, IP6T_SO_ORIGINAL_DST, 28);
  if (value === null) {
    return null;
  }
  const groups: string[] = [];
  for (let at = 8; at < 24; at += 2) {
    groups.push(value.readUInt16BE(at).toString(16));
  }
  return { host: groups.join(":"), port: value.readUInt16BE(2) };
}
