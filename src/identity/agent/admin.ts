/** The agent's own administration: a socket that only its user can open. */
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { EveryhopError } from "../../core/base/errors.ts";
import { nearMisses } from "../../core/entries/near-miss.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import { Agent } from "../../gen/everyhop/agent/agent_pb.js";
import { closePidfd, openPidfd } from "../../io/peer.ts";
import type { Handlers } from "../../io/rpc/adapter.ts";
import { toStatus } from "../../io/rpc/errors.ts";
import { listenUnix, type RpcListener } from "../../io/rpc/listen.ts";
import type { ProcessWatch } from "./attested.ts";
import type { IdentityCache } from "./cache.ts";

export interface AdminOptions {
  readonly socket: string;
  readonly cache: IdentityCache;
  readonly processes: ProcessWatch;
  readonly agentId: () => SpiffeId;
  readonly syncedAtMs: () => number | null;
}

const SOCKET_MODE = 0o600;

/** Serves until closed. Errors: `port-in-use`, `unavailable`. */
export function serveAgentAdmin(options: AdminOptions): Promise<RpcListener<null>> {
  const handlers: Handlers<typeof Agent> = {
    explain(call, callback) {
      explain(options, call.request.pid).then(
        (document) => callback(null, fromJson(StructSchema, document)),
        (error) => callback(toStatus(error)),
      );
    },
  };
  return listenUnix<null>(options.socket, SOCKET_MODE, {
    services: [{ service: Agent, handlers }],
    identify: () => null,
  });
}

/** What would happen if process `pid` asked, and what stands between it and an identity. */
async function explain(options: AdminOptions, pid: number): Promise<JsonObject> {
  const { cache, processes, agentId, syncedAtMs } = options;
  if (pid <= 0) {
    throw new EveryhopError("invalid-argument", "a process id must be positive");
  }
  const pidfd = openPidfd(pid);
  try {
    const { selectors } = await processes.attest({ pid, pidfd, caller: null }, () => true);
    const matching = cache.matching(selectors);
    const misses = nearMisses([...cache.entries.values()], selectors);
    const syncedAt = syncedAtMs();
    return {
      pid,
      selectors: [...selectors],
      matched: matching.map(({ id }) => id),
      identities: matching.map(({ spiffeId }) => spiffeId),
      nearMisses: misses.map(({ entry, missing, instead }) => ({
        entryId: entry.id,
        spiffeId: entry.spiffeId,
        missing: [...missing],
        instead: Object.fromEntries(Object.entries(instead).map(([selector, found]) => [selector, [...found]])),
      })),
      agent: { spiffeId: agentId(), syncedAt: syncedAt === null ? null : new Date(syncedAt).toISOString() },
    };
  } finally {
    if (pidfd !== null) {
      closePidfd(pidfd);
    }
  }
}
