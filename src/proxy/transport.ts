/**
 * What carries bytes between two sidecars: a stream to an upstream whose identity is proven. Here each stream is a mutual TLS
 * connection of its own; joining the streams of a pair of identities in one session is another implementation of `Transport`.
 */
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type SecureContext } from "node:tls";
import type { Upstream } from "../core/api/snapshot.ts";
import type { Clock } from "../core/base/clock.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { parseAddress } from "../io/net.ts";
import { secureContext } from "../io/tls.ts";
import { type Answer, APP_DOWN, NO_IDENTITY, TLS_FAILURE, WRONG_IDENTITY } from "./http/answers.ts";
import { verifyPeer } from "./peer.ts";
import { type Pipe, SocketPipe } from "./pipe.ts";
import type { State } from "./state.ts";

/** A stream to an upstream. */
export interface Link {
  readonly pipe: Pipe;
  /** Who the server proved to be. */
  readonly peer: SpiffeId;
  /** The chain (DER, leaf first) that proved it, and when. */
  readonly chain: readonly Uint8Array[];
  readonly provenAtMs: number;
  /** With which of our SVIDs it was opened. */
  readonly own: X509Svid;
  readonly endpoint: string;
}

export interface LinkFailure {
  /** What a client is told. */
  readonly answer: Answer;
  /** For operators. */
  readonly message: string;
  readonly kind: "connect" | "tls" | "identity" | "no-certificate" | "verify" | "own-identity";
}

export interface Transport {
  /** Opens a stream; `done` is called once, later, unless the function returned (which gives up) was called before. */
  open(upstream: Upstream, done: (link: Link | null, failure: LinkFailure | null) => void): () => void;
}

const CONNECT_TIMEOUT_MS = 5_000;
/** How long a new stream waits for the service's own identity to come. */
const IDENTITY_WAIT_MS = 5_000;
const MAX_ENDPOINTS_TRIED = 3;
const KEEP_ALIVE_MS = 60_000;

/** One mutual TLS connection for each stream. TLS 1.3 only, no resumption: every stream proves both identities anew. */
export class TlsTransport implements Transport {
  readonly #state: State;
  readonly #clock: Clock;
  #context: { svid: X509Svid; context: SecureContext } | null = null;
  #next = 0;

  constructor(state: State, clock: Clock) {
    this.#state = state;
    this.#clock = clock;
  }

  open(upstream: Upstream, done: (link: Link | null, failure: LinkFailure | null) => void): () => void {
    const attempt = new Attempt(
      upstream,
      this.#next++,
      this.#clock,
      this.#state,
      (svid) => this.#contextOf(svid),
      done,
    );
    attempt.start();
    return () => attempt.cancel();
  }

  #contextOf(svid: X509Svid): SecureContext {
    if (this.#context?.svid !== svid) {
      this.#context = { svid, context: secureContext(svid) };
    }
    return this.#context.context;
  }
}

class Attempt {
  readonly #upstream: Upstream;
  readonly #clock: Clock;
  readonly #state: State;
  readonly #contextOf: (svid: X509Svid) => SecureContext;
  readonly #done: (link: Link | null, failure: LinkFailure | null) => void;
  readonly #first: number;
  #tried = 0;
  #over = false;
  #socket: Socket | null = null;
  #cleanup: (() => void)[] = [];

  constructor(
    upstream: Upstream,
    first: number,
    clock: Clock,
    state: State,
    contextOf: (svid: X509Svid) => SecureContext,
    done: (link: Link | null, failure: LinkFailure | null) => void,
  ) {
    this.#upstream = upstream;
    this.#first = first;
    this.#clock = clock;
    this.#state = state;
    this.#contextOf = contextOf;
    this.#done = done;
  }

  start(): void {
    const svid = this.#state.svid.value;
    if (svid !== null) {
      this.#dial(svid);
      return;
    }
    const unwatch = this.#state.svid.watch((next) => {
      if (next !== null) {
        this.#clean();
        this.#dial(next);
      }
    });
    const cancel = this.#clock.after(IDENTITY_WAIT_MS, () =>
      this.#finish(null, { answer: NO_IDENTITY, message: "this service has no identity yet", kind: "own-identity" }),
    );
    this.#cleanup.push(unwatch, cancel);
  }

  cancel(): void {
    if (!this.#over) {
      this.#over = true;
      this.#clean();
      this.#socket?.destroy();
    }
  }

  #dial(own: X509Svid): void {
    const { endpoints, spiffeId } = this.#upstream;
    const endpoint = endpoints[(this.#first + this.#tried) % Math.max(1, endpoints.length)];
    const address = endpoint === undefined ? null : parseAddress(endpoint);
    this.#tried++;
    if (endpoint === undefined || address === null) {
      this.#finish(null, { answer: APP_DOWN, message: "the service has no endpoint", kind: "connect" });
      return;
    }
    const raw = connectTcp({
      ...address,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
    });
    const failed = (error: Error | null) => this.#connectFailed(own, endpoint, error);
    this.#socket = raw;
    // Once TLS has the socket its errors are reported there; here they must only not be unheard.
    raw.on("error", () => {});
    raw.once("error", failed);
    const timeout = this.#clock.after(CONNECT_TIMEOUT_MS, () => {
      raw.off("error", failed);
      raw.destroy();
      this.#socket?.destroy();
      failed(new Error(`no answer in ${CONNECT_TIMEOUT_MS} ms`));
    });
    this.#cleanup.push(timeout);
    raw.once("connect", () => {
      raw.off("error", failed);
      this.#handshake(raw, own, endpoint, spiffeId);
    });
  }

  #connectFailed(own: X509Svid, endpoint: string, error: Error | null): void {
    this.#clean();
    if (this.#over) {
      return;
    }
    if (this.#tried < Math.min(MAX_ENDPOINTS_TRIED, this.#upstream.endpoints.length)) {
      this.#dial(own);
      return;
    }
    const message = `cannot connect to \`${endpoint}\`: ${error?.message ?? "closed"}`;
    this.#finish(null, { answer: APP_DOWN, message, kind: "connect" });
  }

  #handshake(raw: Socket, own: X509Svid, endpoint: string, expected: SpiffeId): void {
    const socket = connectTls({
      socket: raw,
      secureContext: this.#contextOf(own),
      // The chain is checked below, by SPIFFE's rules; OpenSSL's own verdict (no CA is given to it) is not asked.
      rejectUnauthorized: false,
      minVersion: "TLSv1.3",
    });
    this.#socket = socket;
    const onError = (error: Error) => this.#handshakeFailed(`handshake with \`${endpoint}\` failed: ${error.message}`);
    const onClose = () => this.#handshakeFailed(`\`${endpoint}\` closed during the handshake`);
    socket.on("error", onError);
    socket.on("close", onClose);
    socket.once("secureConnect", () => {
      const now = this.#clock.now();
      const verified = verifyPeer(socket, this.#state.bundles.value, now);
      if (!verified.ok) {
        const kind = verified.reason === "no-certificate" ? "no-certificate" : "verify";
        this.#finish(null, { answer: WRONG_IDENTITY, message: `\`${endpoint}\`: ${verified.message}`, kind });
      } else if (verified.id !== expected) {
        const message = `\`${endpoint}\` proved to be \`${verified.id}\`, not \`${expected}\``;
        this.#finish(null, { answer: WRONG_IDENTITY, message, kind: "identity" });
      } else {
        const pipe = new SocketPipe(socket);
        socket.off("error", onError);
        socket.off("close", onClose);
        this.#socket = null;
        this.#finish({ pipe, peer: verified.id, chain: verified.chain, provenAtMs: now, own, endpoint }, null);
      }
    });
  }

  #handshakeFailed(message: string): void {
    this.#finish(null, { answer: TLS_FAILURE, message, kind: "tls" });
  }

  #finish(link: Link | null, failure: LinkFailure | null): void {
    this.#clean();
    if (this.#over) {
      link?.pipe.destroy();
      return;
    }
    this.#over = true;
    if (this.#socket !== null) {
      this.#socket.on("error", () => {});
      this.#socket.destroy();
    }
    this.#done(link, failure);
  }

  #clean(): void {
    for (const end of this.#cleanup.splice(0)) {
      end();
    }
  }
}
