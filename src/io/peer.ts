/**
 * Who is on the other end of a unix socket, as the kernel says (Linux). Node has no API for it, so libc is called.
 * The credentials are those of the process that called connect(2), at that moment. Source: unix(7), pidfd_open(2).
 */
import { closeSync } from "node:fs";
import type { Socket } from "node:net";
import koffi from "koffi";
import { EveryhopError } from "../core/base/errors.ts";

export interface PeerCredentials {
  /** In our PID namespace. */
  readonly pid: number;
  /** Effective ids at the time of connect(2). */
  readonly uid: number;
  readonly gid: number;
}

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERPIDFD = 77;
const SYS_PIDFD_OPEN = 434;
const ENOPROTOOPT = 92;
const POLLIN = 1;
const POLLFD_BYTES = 8;
const CREDENTIALS_BYTES = 12;

interface Libc {
  getsockopt(fd: number, level: number, name: number, value: Buffer, length: number[]): number;
  syscall(number: number, ...args: (string | number)[]): number | bigint;
  poll(fds: Buffer, count: number, timeoutMs: number): number;
}

let loaded: Libc | null = null;

function libc(): Libc {
  if (loaded === null) {
    if (process.platform !== "linux") {
      throw new EveryhopError("not-supported", "workloads can only be attested on Linux");
    }
    const library = koffi.load(null);
    loaded = {
      getsockopt: library.func("int getsockopt(int fd, int level, int name, _Out_ void *val, _Inout_ uint32_t *len)"),
      syscall: library.func("long syscall(long nr, ...)"),
      poll: library.func("int poll(_Inout_ void *fds, unsigned long n, int timeout)"),
    };
  }
  return loaded;
}

function socketOption(socket: Socket, name: number, size: number): Buffer | null {
  const fd = (socket as Socket & { _handle?: { fd?: number } })._handle?.fd ?? -1;
  if (fd < 0) {
    throw new EveryhopError("unauthenticated", "the connection is gone");
  }
  const value = Buffer.alloc(size);
  if (libc().getsockopt(fd, SOL_SOCKET, name, value, [size]) === 0) {
    return value;
  }
  if (koffi.errno() === ENOPROTOOPT) {
    return null;
  }
  throw new EveryhopError("unauthenticated", "the kernel does not say which process the peer is: it may be gone");
}

/** The credentials of a unix socket's peer. Errors: `unauthenticated` where the kernel names no process we can see. */
export function peerCredentials(socket: Socket): PeerCredentials {
  const value = socketOption(socket, SO_PEERCRED, CREDENTIALS_BYTES);
  const pid = value?.readInt32LE(0) ?? 0;
  if (value === null || pid <= 0) {
    throw new EveryhopError("unauthenticated", "the kernel does not say which process the peer is", {
      hint: "the agent has to run in the PID namespace of its workloads, or in one above",
    });
  }
  return { pid, uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/**
 * A file descriptor that stands for the peer's process and never for another one; to be closed with `closePidfd`. Null where
 * the kernel cannot (SO_PEERPIDFD: Linux 6.5). Errors: `unauthenticated` where the process is gone.
 */
export function peerPidfd(socket: Socket): number | null {
  return socketOption(socket, SO_PEERPIDFD, 4)?.readInt32LE(0) ?? null;
}

/** A pidfd of process `pid`, or null where there is none (or, before Linux 5.3, no such call). */
export function openPidfd(pid: number): number | null {
  const fd = Number(libc().syscall(SYS_PIDFD_OPEN, "int", pid, "uint", 0));
  return fd < 0 ? null : fd;
}

export function closePidfd(pidfd: number): void {
  closeSync(pidfd);
}

/** Which of the processes have exited (also those nobody has waited for yet). One system call, never blocks. */
export function exitedPidfds(pidfds: readonly number[]): boolean[] {
  if (pidfds.length === 0) {
    return [];
  }
  const polled = Buffer.alloc(pidfds.length * POLLFD_BYTES);
  pidfds.forEach((fd, index) => {
    polled.writeInt32LE(fd, index * POLLFD_BYTES);
    polled.writeInt16LE(POLLIN, index * POLLFD_BYTES + 4);
  });
  libc().poll(polled, pidfds.length, 0);
  // Any event counts, POLLNVAL too: what cannot be asked is not trusted to live.
  return pidfds.map((_, index) => polled.readInt16LE(index * POLLFD_BYTES + 6) !== 0);
}
