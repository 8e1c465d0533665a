/** An identity that keeps itself current: what `watchX509` and `watchBroker` give. */
import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import { status as Status } from "@grpc/grpc-js";
import { backoffMs } from "../core/base/backoff.ts";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import type { Log } from "../io/log.ts";

export type SourceState =
  /** Nothing was heard yet. */
  | { readonly kind: "connecting" }
  | { readonly kind: "ready" }
  /** The agent answers, and has no identity for this workload: `svid` is null. Asked again with backoff. */
  | { readonly kind: "denied"; readonly message: string }
  /** The agent does not answer: the last SVID stays until it expires. Asked again with backoff. */
  | { readonly kind: "away"; readonly message: string }
  /** The agent will never answer such a request; it is not asked again. */
  | { readonly kind: "failed"; readonly message: string };

export interface X509Source {
  /** The identity to use; null while there is none, and from the moment it expires or is withdrawn. */
  readonly svid: Cell<X509Svid | null>;
  /** All identities of the workload, in the agent's order. */
  readonly svids: Cell<readonly X509Svid[]>;
  /** Own and federated trust domains. */
  readonly bundles: Cell<X509Bundles>;
  readonly state: Cell<SourceState>;
  close(): void;
}

export interface X509Update {
  readonly svids: readonly X509Svid[];
  readonly bundles: X509Bundles;
}

/** How a source asks: a stream of responses, how to read one, and which of the SVIDs to use. */
export interface Subscription<R> {
  /** Opens one stream on a connection of its own; `end` gives both up. Null: it cannot be asked yet, `restart` will follow. */
  open(): { readonly stream: ClientReadableStream<R>; end(): void } | null;
  /** Throws where the response is not acceptable. */
  read(response: R): X509Update;
  choose(svids: readonly X509Svid[]): X509Svid | null;
  readonly log: Log;
  readonly clock: Clock;
  /** In [0, 1); default: Math.random. Spreads retries, is no secret. */
  readonly random?: () => number;
}

/** A local socket: asking again is cheap, and a workload that waits for its entry should not wait long. */
const RETRY = { firstMs: 50, maxMs: 5_000 };
/** SPEC: Workload Endpoint §6: the codes after which a client does not ask again. */
const FINAL = new Set<number>([Status.INVALID_ARGUMENT, Status.UNIMPLEMENTED]);
/** SPEC: Workload Endpoint §6, Broker API: the agent says that there is no identity (any more). */
const DENIED = new Set<number>([Status.PERMISSION_DENIED, Status.NOT_FOUND]);

/** Follows a subscription until closed, reconnecting with backoff. */
export function follow<R>(subscription: Subscription<R>): X509Source & { restart(): void } {
  const follower = new Follower(subscription);
  follower.connect();
  const { svid, svids, bundles, state } = follower;
  return { svid, svids, bundles, state, close: () => follower.close(), restart: () => follower.connect() };
}

class Follower<R> {
  readonly svid = new Cell<X509Svid | null>(null);
  readonly svids = new Cell<readonly X509Svid[]>([]);
  readonly bundles = new Cell<X509Bundles>(new Map());
  readonly state = new Cell<SourceState>({ kind: "connecting" });
  readonly #subscription: Subscription<R>;
  #end: (() => void) | null = null;
  #cancelRetry: (() => void) | null = null;
  #cancelExpiry: (() => void) | null = null;
  #attempt = 0;
  #closed = false;

  constructor(subscription: Subscription<R>) {
    this.#subscription = subscription;
  }

  /** Opens a new stream, and leaves the one that is open; values stay until the new one speaks. */
  connect(): void {
    if (this.#closed) {
      return;
    }
    this.#end?.();
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    this.#end = null;
    const opened = this.#subscription.open();
    if (opened === null) {
      return;
    }
    const { stream, end } = opened;
    let current = true;
    this.#end = () => {
      current = false;
      end();
    };
    stream.on("data", (response: R) => current && this.#take(response));
    stream.on("error", (error: ServiceError) => current && this.#lost(error.code, error.details));
    stream.on("end", () => current && this.#lost(Status.UNAVAILABLE, "the agent ended the stream"));
  }

  close(): void {
    this.#closed = true;
    this.#end?.();
    this.#cancelRetry?.();
    this.#cancelExpiry?.();
  }

  #take(response: R): void {
    const { read, choose, log } = this.#subscription;
    let update: X509Update;
    try {
      update = read(response);
    } catch (error) {
      log.error("the agent's answer is not acceptable", { error });
      return;
    }
    this.#attempt = 0;
    if (!sameBundles(this.bundles.value, update.bundles)) {
      this.bundles.set(update.bundles);
    }
    this.#use(update.svids, choose(update.svids));
    this.#become(
      this.svid.value === null ? { kind: "denied", message: "no such identity is issued" } : { kind: "ready" },
    );
  }

  /** Watchers hear of changes, not of repetitions: each reconnect brings everything again. */
  #become(state: SourceState): void {
    if (JSON.stringify(this.state.value) !== JSON.stringify(state)) {
      this.state.set(state);
    }
  }

  #use(svids: readonly X509Svid[], svid: X509Svid | null): void {
    if (!sameSvids(this.svids.value, svids)) {
      this.svids.set(svids);
    }
    if (this.svid.value?.serial !== svid?.serial) {
      this.svid.set(svid);
    }
    this.#cancelExpiry?.();
    this.#cancelExpiry = null;
    if (svid !== null) {
      const { clock, log } = this.#subscription;
      this.#cancelExpiry = clock.after(svid.notAfter - clock.now(), () => {
        log.warn("the SVID expired and no new one came", { spiffeId: svid.id, state: this.state.value.kind });
        this.#use([], null);
      });
    }
  }

  #lost(code: number, message: string): void {
    this.#end?.();
    this.#end = null;
    const { clock, log, random = Math.random } = this.#subscription;
    if (DENIED.has(code)) {
      this.#use([], null);
      this.#become({ kind: "denied", message });
    } else if (FINAL.has(code)) {
      log.error("the agent refuses the request", { error: message });
      this.#use([], null);
      this.#become({ kind: "failed", message });
      return;
    } else {
      this.#become({ kind: "away", message });
    }
    const waitMs = backoffMs(this.#attempt, RETRY, random());
    this.#attempt += 1;
    log.debug("asking the agent again", { waitMs: Math.round(waitMs), reason: message });
    this.#cancelRetry = clock.after(waitMs, () => this.connect());
  }
}

function sameSvids(a: readonly X509Svid[], b: readonly X509Svid[]): boolean {
  return (
    a.length === b.length && a.every((svid, index) => svid.serial === b[index]?.serial && svid.hint === b[index]?.hint)
  );
}

function sameBundles(a: X509Bundles, b: X509Bundles): boolean {
  return (
    a.size === b.size &&
    [...a].every(([name, authorities]) => {
      const others = b.get(name);
      return others?.length === authorities.length && authorities.every((der, index) => sameBytes(der, others[index]));
    })
  );
}

function sameBytes(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b !== undefined && Buffer.compare(a, b) === 0;
}
