/**
 * Brings every connected sidecar to the current World. States, not events: per stream the delta machine knows what is wanted and
 * what was sent; a slow sidecar holds up itself alone, and costs one response's memory however much changes meanwhile.
 */
import { SNAPSHOT_TYPE, snapshotName } from "../core/api/snapshot.ts";
import type { Clock } from "../core/base/clock.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import {
  type DeltaRequest,
  type DeltaResponse,
  inForce,
  NEW_PEER,
  type Offer,
  type Peer,
  receive,
  rejectionOf,
  type Step,
  settle,
  stateOf,
} from "../core/xds/delta.ts";
import type { Log } from "../io/log.ts";
import type { ControlMetrics } from "./metrics.ts";
import { type Slice, slicesOf } from "./slice.ts";
import type { World } from "./world.ts";

export type Answer = DeltaResponse<Slice>;

/** One sidecar's stream as the transport sees it. */
export interface PushStream {
  receive(request: DeltaRequest): void;
  close(): void;
}

/** How the streams of one node stand: the worst of them, where a service has several sidecars. */
export interface NodeState {
  readonly connected: number;
  /** The world version that is in force in every one of them; 0: none is known. */
  readonly inForce: number;
  readonly state: "synced" | "pending" | "rejected" | "stale";
  readonly error: string | null;
}

export interface StreamEnds {
  /** Sends a response; never called again before the sidecar has answered it. */
  readonly send: (answer: Answer) => void;
  /** Ends the stream: the sidecar is to come again. */
  readonly end: (error: EveryhopError) => void;
}

interface Stream {
  readonly node: string;
  readonly ends: StreamEnds;
  peer: Peer;
  /** When the response in flight was sent. */
  sentAt: number | null;
  cancelDeadline: (() => void) | null;
}

interface PushOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: ControlMetrics;
  /** Called when what the sidecars of `node` have in force may have changed. */
  readonly onProgress: (node: string) => void;
}

const ANSWER_DEADLINE_MS = 30_000;
/** Streams that may claim one node at once: replicas of its service, and connections not yet known to be dead. */
const MAX_STREAMS_PER_NODE = 64;

export class Push {
  readonly #options: PushOptions;
  readonly #streams = new Map<string, Set<Stream>>();
  /** What a node was last seen to hold, while it is away. */
  readonly #last = new Map<string, { inForce: number; error: string | null }>();
  #world: World;
  #slices: Map<string, Slice>;
  /** Connected nodes that have not answered for the current world. */
  readonly #pending = new Set<string>();
  /** When the oldest change that is not in force everywhere was published. */
  #divergedAt: number | null = null;

  constructor(world: World, options: PushOptions) {
    this.#options = options;
    this.#world = world;
    this.#slices = slicesOf(world, new Map());
  }

  get world(): World {
    return this.#world;
  }

  /** Puts `world` in the place of the one before and sends each sidecar what it lacks. */
  publish(world: World): void {
    this.#world = world;
    this.#slices = slicesOf(world, this.#slices);
    for (const node of this.#last.keys()) {
      if (!this.#slices.has(node)) {
        this.#last.delete(node);
      }
    }
    this.#divergedAt ??= this.#options.clock.now();
    for (const [node, streams] of this.#streams) {
      const offer = this.#offer(node);
      for (const stream of streams) {
        this.#step(stream, settle(stream.peer, offer));
      }
      this.#track(node);
    }
    this.#observeConvergence();
  }

  /** A sidecar says it is `node`. Errors: `not-found` where there is no such service, `resource-exhausted`. */
  open(node: string, ends: StreamEnds): PushStream {
    if (!this.#slices.has(node)) {
      throw unknownNode(node, this.#slices.keys());
    }
    const streams = this.#streams.get(node) ?? new Set();
    if (streams.size >= MAX_STREAMS_PER_NODE) {
      throw new EveryhopError("resource-exhausted", `more than ${MAX_STREAMS_PER_NODE} streams for \`${node}\``);
    }
    const stream: Stream = { node, ends, peer: NEW_PEER, sentAt: null, cancelDeadline: null };
    this.#streams.set(node, streams.add(stream));
    this.#options.log.info("sidecar connected", { node });
    return {
      receive: (request) => this.#receive(stream, request),
      close: () => this.#close(stream),
    };
  }

  /** How the sidecars of `node` stand. */
  stateOf(node: string): NodeState {
    const streams = [...(this.#streams.get(node) ?? [])];
    if (streams.length === 0) {
      const { inForce: version, error } = this.#last.get(node) ?? { inForce: 0, error: null };
      return { connected: 0, inForce: version, state: "stale", error };
    }
    const offer = this.#offer(node);
    const states = streams.map(({ peer }) => stateOf(peer, offer));
    return {
      connected: streams.length,
      inForce: Math.min(...streams.map(({ peer }) => inForce(peer))),
      state: states.find((state) => state === "rejected") ?? states.find((state) => state === "pending") ?? "synced",
      error: streams.map(({ peer }) => rejectionOf(peer, offer)).find((error) => error !== null) ?? null,
    };
  }

  /** Names of all nodes there should be, in the order of the services. */
  nodes(): readonly string[] {
    return this.#world.services.map(snapshotName);
  }

  #offer(node: string): Offer<Slice> {
    const slice = this.#slices.get(node);
    const resources = new Map(slice === undefined ? [] : [[node, { version: slice.version, body: slice }]]);
    return { world: this.#world.version, types: new Map([[SNAPSHOT_TYPE, resources]]) };
  }

  #receive(stream: Stream, request: DeltaRequest): void {
    const offer = this.#offer(stream.node);
    const answers = stream.sentAt !== null && request.nonce === String(stream.peer.responses);
    const step = receive(stream.peer, request, offer);
    if (answers) {
      this.#answered(stream, request.error);
    }
    this.#step(stream, step);
    this.#track(stream.node);
    this.#observeConvergence();
  }

  #answered(stream: Stream, error: string | null): void {
    const { clock, log, metrics } = this.#options;
    metrics.pushSeconds.observe((clock.now() - (stream.sentAt ?? 0)) / 1_000);
    stream.cancelDeadline?.();
    stream.cancelDeadline = null;
    stream.sentAt = null;
    if (error !== null) {
      metrics.rejects.inc();
      log.error("a sidecar refuses its snapshot and goes on with the one before", { node: stream.node, error });
    }
  }

  #step(stream: Stream, { peer, send }: Step<Slice>): void {
    const { clock, metrics } = this.#options;
    stream.peer = peer;
    for (const answer of send) {
      stream.sentAt = clock.now();
      stream.cancelDeadline = clock.after(ANSWER_DEADLINE_MS, () => this.#overdue(stream));
      metrics.pushes.inc();
      stream.ends.send(answer);
    }
  }

  #overdue(stream: Stream): void {
    this.#options.log.warn("a sidecar does not answer", { node: stream.node });
    this.#close(stream);
    stream.ends.end(
      new EveryhopError("unavailable", `no answer to a push within ${ANSWER_DEADLINE_MS / 1_000} s`, {
        hint: "connect again with what you hold",
      }),
    );
  }

  #close(stream: Stream): void {
    const streams = this.#streams.get(stream.node);
    if (streams?.delete(stream) !== true) {
      return;
    }
    stream.cancelDeadline?.();
    if (streams.size === 0) {
      this.#streams.delete(stream.node);
      const error = rejectionOf(stream.peer, this.#offer(stream.node));
      this.#last.set(stream.node, { inForce: inForce(stream.peer), error });
    }
    this.#options.log.info("sidecar gone", { node: stream.node });
    this.#track(stream.node);
    this.#observeConvergence();
  }

  #track(node: string): void {
    if (this.stateOf(node).state === "pending") {
      this.#pending.add(node);
    } else {
      this.#pending.delete(node);
    }
    this.#options.onProgress(node);
  }

  #observeConvergence(): void {
    if (this.#divergedAt !== null && this.#pending.size === 0) {
      this.#options.metrics.convergenceSeconds.observe((this.#options.clock.now() - this.#divergedAt) / 1_000);
      this.#divergedAt = null;
    }
  }
}

function unknownNode(node: string, known: Iterable<string>): EveryhopError {
  const near = suggest(node, known);
  return new EveryhopError("not-found", `no service \`${node.slice(0, 256)}\` is registered in this mesh`, {
    hint:
      near === null
        ? "a sidecar's node id is `<namespace>/<service>`, as in the server's `services`"
        : `did you mean \`${near}\`?`,
  });
}
