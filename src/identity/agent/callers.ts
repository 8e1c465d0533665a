/** Who is connected to the agent's sockets, as the kernel says. */
import type { Socket } from "node:net";
import { EveryhopError } from "../../core/base/errors.ts";
import { closePidfd, peerCredentials, peerPidfd } from "../../io/peer.ts";
import { processImage } from "../../io/process.ts";
import type { ProcessReference } from "../attest/workload/observe.ts";

export interface Caller {
  readonly reference: ProcessReference & { readonly caller: NonNullable<ProcessReference["caller"]> };
}

/** Each connection costs two descriptors. One user's processes cannot use up what others need. */
const MAX_CONNECTIONS = 6_000;
const MAX_CONNECTIONS_OF_USER = 2_500;
const MAX_STREAMS_OF_USER = 4_000;
/** Those whose connections come over TCP. */
const NO_USER = -1;

/** Bounds for what a hostile process can make the agent hold. */
export const LIMITS = {
  maxConnections: MAX_CONNECTIONS,
  grpc: {
    "grpc.max_concurrent_streams": 256,
    // Envoy's first request lists all of its extensions.
    "grpc.max_receive_message_length": 256 * 1024,
    "grpc.max_metadata_size": 8 * 1024,
  },
};

export class Callers {
  readonly #ofUser = new Map<number, number>();
  readonly #streamsOfUser = new Map<number, number>();
  /** Open connections. */
  count = 0;

  /**
   * The caller of a connection just accepted. RACE: what it runs is noted at once; a process that becomes another program
   * later is refused. Errors: `unauthenticated`, `resource-exhausted`.
   */
  admit(socket: Socket): Caller {
    const credentials = peerCredentials(socket);
    const connections = (this.#ofUser.get(credentials.uid) ?? 0) + 1;
    if (connections > MAX_CONNECTIONS_OF_USER) {
      throw new EveryhopError("resource-exhausted", `user ${credentials.uid} has too many connections`);
    }
    const pidfd = peerPidfd(socket);
    const image = processImage(credentials.pid);
    if (image === null) {
      if (pidfd !== null) {
        closePidfd(pidfd);
      }
      throw new EveryhopError("unauthenticated", `process ${credentials.pid} is gone`);
    }
    this.#ofUser.set(credentials.uid, connections);
    this.count += 1;
    return { reference: { pid: credentials.pid, pidfd, caller: { ...credentials, image } } };
  }

  /** Once per caller, when its connection has closed. */
  forget({ reference: { pidfd, caller } }: Caller): void {
    if (pidfd !== null) {
      closePidfd(pidfd);
    }
    this.count -= 1;
    decrement(this.#ofUser, caller.uid);
  }

  /** Counts a stream of the caller; the function returned, once called, takes it off. Errors: `resource-exhausted`. */
  enterStream({ reference }: { readonly reference: Caller["reference"] | null }): () => void {
    const uid = reference?.caller.uid ?? NO_USER;
    const streams = (this.#streamsOfUser.get(uid) ?? 0) + 1;
    if (streams > MAX_STREAMS_OF_USER) {
      throw new EveryhopError("resource-exhausted", `user ${uid} has too many streams`);
    }
    this.#streamsOfUser.set(uid, streams);
    return () => decrement(this.#streamsOfUser, uid);
  }
}

function decrement(counts: Map<number, number>, key: number): void {
  const left = (counts.get(key) ?? 1) - 1;
  if (left === 0) {
    counts.delete(key);
  } else {
    counts.set(key, left);
  }
}
