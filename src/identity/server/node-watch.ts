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
  /** Number of the last change that touched the agent's entries. */
  entriesRevision: bigint;
  readonly end: () => void;
}

const NOBODY: ReadonlySet<Watcher> = new Set();

export interface NodeWatchOptions {
  readonly registry: Registry;
  readonly bundles: Bundles;
  readonly clock: Clock;
}

/**
 * everyhop.node.v1.Node: agents hear of a change when it is made, instead of asking every five seconds. A change costs what the
 * agents cost that it touches, however many others there are.
 */
export class NodeWatch {
  readonly #options: NodeWatchOptions;
  readonly #watchers = new Map<SpiffeId, Set<Watcher>>();
  /** To be told once this turn of the event loop is over. */
  readonly #due = new Set<Watcher>();
  #scheduled = false;

  constructor(options: NodeWatchOptions) {
    this.#options = options;
    const { registry, bundles } = options;
    registry.watchAgents((agents, change) => {
      if (change.kind === "node") {
        this.#nodeChanged(change.id);
      }
      for (const watcher of [...agents].flatMap((agent) => [...this.#of(agent)])) {
        watcher.entriesRevision = BigInt(registry.revision);
        this.#schedule(watcher);
      }
    });
    let { sequence } = bundles.own.value;
    bundles.own.watch((bundle) => {
      if (bundle.sequence !== sequence) {
        ({ sequence } = bundle);
        for (const watcher of [...this.#watchers.values()].flatMap((ofAgent) => [...ofAgent])) {
          this.#schedule(watcher);
        }
      }
    });
  }

  #of(agent: SpiffeId): ReadonlySet<Watcher> {
    return this.#watchers.get(agent) ?? NOBODY;
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
    const { clock, registry } = this.#options;
    const cancelExpiry = clock.after(expiresAt - clock.now(), () => {
      this.#close(watcher, Reason.AGENT_EXPIRED, "agent SVID is expired");
    });
    const end = (): void => {
      cancelExpiry();
      ofAgent.delete(watcher);
      this.#due.delete(watcher);
      if (ofAgent.size === 0) {
        this.#watchers.delete(agent);
      }
    };
    const ofAgent = this.#watchers.get(agent) ?? new Set();
    const watcher: Watcher = { call, agent, entriesRevision: BigInt(registry.revision), end };
    this.#watchers.set(agent, ofAgent.add(watcher));
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
    for (const watcher of [...this.#of(id)]) {
      if (node === null) {
        this.#close(watcher, Reason.AGENT_NOT_ATTESTED, "agent is not attested");
      } else if (node.banned) {
        this.#close(watcher, Reason.AGENT_BANNED, "agent is banned");
      }
    }
  }

  /** Changes made within one turn of the event loop are told at once. */
  #schedule(watcher: Watcher): void {
    this.#due.add(watcher);
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        const due = [...this.#due];
        this.#due.clear();
        for (const one of due) {
          this.#tell(one);
        }
      });
    }
  }

  #tell({ call, entriesRevision }: Watcher): void {
    call.write({ entriesRevision, bundleSequence: this.#options.bundles.own.value.sequence });
  }
}
