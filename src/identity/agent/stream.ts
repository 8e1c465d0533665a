/** One stream of identities or bundles to one workload (or to its broker), kept as the cache and the process are. */
import type { ServerDuplexStream, ServerWritableStream } from "@grpc/grpc-js";
import type { Selector } from "../../core/entries/selector.ts";
import type { Log } from "../../io/log.ts";
import { type CallEnd, Ended } from "./answer.ts";
import type { IdentityCache } from "./cache.ts";
import type { Subject } from "./subject.ts";

/** What to tell a workload now. */
export type Rendered =
  /** `key` differs whenever `message` does; an unchanged one is not sent again. */
  | { readonly kind: "message"; readonly key: string; readonly message: () => Buffer }
  /** Nothing yet: SVIDs are on their way. */
  | { readonly kind: "wait" }
  | { readonly kind: "end"; readonly end: CallEnd };

export interface StreamOptions {
  readonly call: ServerWritableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>;
  readonly process: Subject;
  readonly cache: IdentityCache;
  readonly render: (selectors: readonly Selector[]) => Rendered;
  /** How the stream ends where the process can no longer be attested. */
  readonly lost: (error: unknown) => CallEnd;
  readonly log: Log;
  /** Called once, when the stream has ended for whatever reason. */
  readonly onEnd?: () => void;
}

export interface RunningStream {
  /** Something other than cache or process changed: what to tell is looked at again. */
  update(): void;
  /** The caller has left. */
  leave(): void;
}

/**
 * Serves until the caller leaves, the process is gone or it has no identity any more.
 * INVARIANT: before anything new is sent the process is looked at again: a key goes to the process it is for, or nowhere.
 */
export function serveStream(options: StreamOptions): RunningStream {
  const { call, process, cache } = options;
  const stream = new IdentityStream(options);
  const update = () => stream.update();
  const unwatch = cache.changed.watch(update);
  const unsuspect = process.onSuspicion(update);
  stream.onEnd(() => {
    unwatch();
    unsuspect();
    process.close();
    options.onEnd?.();
  });
  call.on("cancelled", () => stream.leave());
  call.on("close", () => stream.leave());
  call.on("error", () => stream.leave());
  // RACE: the caller may have left while its process was attested, and says so only once.
  if (call.cancelled || call.destroyed) {
    stream.leave();
  }
  update();
  return stream;
}

class IdentityStream {
  readonly #options: StreamOptions;
  #last: string | null = null;
  #writing = false;
  #running = false;
  #again = false;
  #ended = false;
  #onEnd: () => void = () => {};

  constructor(options: StreamOptions) {
    this.#options = options;
  }

  onEnd(tell: () => void): void {
    this.#onEnd = tell;
  }

  /** Something may have changed. One look at a time: what comes meanwhile is looked at after it. */
  update(): void {
    this.#again = true;
    if (!this.#running) {
      this.#running = true;
      void this.#run();
    }
  }

  leave(): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#onEnd();
    }
  }

  async #run(): Promise<void> {
    while (this.#again && !this.#ended) {
      this.#again = false;
      try {
        await this.#look();
      } catch (error) {
        this.#end(error instanceof Ended ? error.end : this.#options.lost(error));
      }
    }
    this.#running = false;
  }

  async #look(): Promise<void> {
    const { process, render } = this.#options;
    const expected = process.stale ? null : render(process.attestation.selectors);
    if (expected?.kind === "message" && expected.key === this.#last) {
      return;
    }
    if (expected?.kind === "wait") {
      return;
    }
    const { selectors } = await process.current();
    const rendered = render(selectors);
    if (rendered.kind === "end") {
      throw new Ended(rendered.end);
    }
    if (rendered.kind === "message" && rendered.key !== this.#last && !this.#writing && !this.#ended) {
      this.#last = rendered.key;
      this.#write(rendered.message());
    }
  }

  /** A reader who does not read has one message of ours, not a queue of them: the next goes out when this one has gone. */
  #write(message: Buffer): void {
    this.#writing = true;
    this.#options.call.write(message, () => {
      this.#writing = false;
      this.update();
    });
  }

  #end(end: CallEnd): void {
    if (!this.#ended) {
      this.leave();
      this.#options.call.emit("error", end);
    }
  }
}
