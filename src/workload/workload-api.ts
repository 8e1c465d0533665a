/** A workload's own identity, from the SPIFFE Workload API of the local agent. */
import { credentials, Metadata } from "@grpc/grpc-js";
import type { Clock } from "../core/base/clock.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { SpiffeWorkloadAPI, type X509SVIDResponse } from "../gen/spiffe/workload_pb.js";
import type { Log } from "../io/log.ts";
import { makeClient, type RpcClient } from "../io/rpc/adapter.ts";
import { readX509 } from "./read-x509.ts";
import { socketTarget } from "./socket.ts";
import { follow, type X509Source } from "./x509-source.ts";

export interface WatchX509Options {
  /** `unix:///abs/path` or the path. */
  readonly socket: string;
  /** The identity to use where the agent gives several; default: the first. */
  readonly spiffeId?: SpiffeId;
  readonly log: Log;
  readonly clock: Clock;
  readonly random?: () => number;
}

/** Follows the identities of this process. Never throws for what the agent does; see `state`. */
export function watchX509(options: WatchX509Options): X509Source {
  const { spiffeId, clock } = options;
  const target = socketTarget(options.socket);
  return follow<X509SVIDResponse>({
    ...options,
    open() {
      const client = workloadClient(target);
      const stream = client.fetchX509SVID({}, { metadata: workloadMetadata() });
      return {
        stream,
        end() {
          stream.cancel();
          client.close();
        },
      };
    },
    read: (response) => readX509(response, clock.now()),
    choose: (svids) => svids.find(({ id }) => spiffeId === undefined || id === spiffeId) ?? null,
  });
}

/** A client of the Workload API on a connection of its own. */
export function workloadClient(target: string): RpcClient<typeof SpiffeWorkloadAPI> {
  return makeClient(SpiffeWorkloadAPI, target, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.keepalive_time_ms": 20_000,
  });
}

/** SPEC: Workload Endpoint §5.1: without it a request is refused, so that no browser or proxy can be tricked into asking. */
export function workloadMetadata(): Metadata {
  const metadata = new Metadata();
  metadata.set("workload.spiffe.io", "true");
  return metadata;
}
