import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServerWritableStream } from "@grpc/grpc-js";
import type { Clock } from "../../core/base/clock.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { Node, WatchEventSchema, WatchRequest } from "../../gen/everyhop/node/node_pb.js";
import { PermissionDeniedDetails_Reason as Reason } from "../../gen/spire/api/types/status_pb.js";
import { rpcStatus } from "../../io/rpc/errors.ts";
import type { Bundles } from "./bundles.ts";
import { agentDenied } from "./callers.ts";
import type { GuardedHandlers } from "./guard.ts";
import type { Registry } from "./registry.ts";

type WatchCall = ServerWritableStream<WatchRequest, MessageInitShape<typeof WatchEventSchema>>;

interface Watcher {
  readonly call: WatchCall;
  readonly agent: SpiffeId;
  /** What the agent was last told it is authorised for. */
  known: string;
  bundleSequence: bigint;
  readonly end: () => void;
}

export interface NodeWatchOptions {
  readonly registry: Registry;
  readonly bundles: Bundles;
  readonly clock: Clock;
}

/** everyhop.node.v1.Node: agents hear of a change when it is made, instead of asking every five seconds. */
export class NodeWatch {
  readonly #options: NodeWatchOptions;
  readonly #watchers = new Set<Watcher>();
  #scheduled = false;

  constructor(options: NodeWatchOptions) {
    this.#options = options;
    options.registry.watch((change) => {
      if (change.kind === "node") {
        this.#nodeChanged(change.id);
      }
      this.#schedule();
    });
    options.bundles.own.watch(() => this.#schedule());
  }

  service(): GuardedHandlers<typeof Node> {
    return {
      watch: (call, { node, caller }) => {
        const expiresAt = caller.kind === "remote" ? (caller.svid?.notAfterMs ?? 0) : Number.MAX_SAFE_INTEGER;
        this.#add(call, node?.id as SpiffeId, expiresAt);
      },
    };
  }

  #add(call: WatchCall, agent: SpiffeId, expiresAt: number): void {
    const { clock } = this.#options;
    const cancelExpiry = clock.after(expiresAt - clock.now(), () => {
      this.#close(watcher, Reason.AGENT_EXPIRED, "agent SVID is expired");
    });
    const end = (): void => {
      cancelExpiry();
      this.#watchers.delete(watcher);
    };
    const watcher: Watcher = { call, agent, known: "", bundleSequence: -1n, end };
    this.#watchers.add(watcher);
    call.on("cancelled", end);
    call.on("close", end);
    this.#tell(watcher);
  }

  #close(watcher: Watcher, reason: Reason, message: string): void {
    watcher.end();
    watcher.call.emit("error", rpcStatus(agentDenied(reason, message)));
  }

  /** An agent that was thrown out hears of it at once. */
  #nodeChanged(id: SpiffeId): void {
    const node = this.#options.registry.node(id);
    for (const watcher of [...this.#watchers].filter(({ agent }) => agent === id)) {
      if (node === null) {
        this.#close(watcher, Reason.AGENT_NOT_ATTESTED, "agent is not attested");
      } else if (node.banned) {
        this.#close(watcher, Reason.AGENT_BANNED, "agent is banned");
      }
    }
  }

  /** Changes made within one turn of the event loop are looked at once. */
  #schedule(): void {
    if (!this.#scheduled && this.#watchers.size > 0) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        for (const watcher of [...this.#watchers]) {
          this.#tell(watcher);
        }
      });
    }
  }

  #tell(watcher: Watcher): void {
    const { registry, bundles } = this.#options;
    const entries = registry.authorizedEntries(watcher.agent);
    const federated = new Set(entries.flatMap(({ federatesWith }) => federatesWith));
    const known = [
      ...entries.map(({ id, revision, createdAtMs }) => `${id} ${revision} ${createdAtMs}`),
      ...[...federated].map((trustDomain) => `${trustDomain} ${bundles.changesOf(trustDomain)}`),
    ].join("\n");
    const { sequence } = bundles.own.value;
    if (known !== watcher.known || sequence !== watcher.bundleSequence || watcher.bundleSequence === -1n) {
      watcher.known = known;
      watcher.bundleSequence = sequence;
      watcher.call.write({ entriesRevision: BigInt(registry.revision), bundleSequence: sequence });
    }
  }
}
