/** The connections to one upstream: kept between requests, each with a proven server at its end. */
import type { Upstream } from "../core/api/snapshot.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import type { Cause, Connections, Tracked } from "./connections.ts";
import { UPSTREAM_RESET } from "./http/answers.ts";
import { HttpBack } from "./http-back.ts";
import type { HttpFront } from "./http-front.ts";
import type { Proof } from "./peer.ts";
import type { State } from "./state.ts";
import type { Link, LinkFailure, Transport } from "./transport.ts";

const IDLE_MS = 60_000;
const MAX_IDLE = 256;
/** Handshakes at once to one upstream: beyond that a request waits for one of these, or for a connection that comes free. */
const MAX_DIALS = 32;

/** A connection to an upstream, as the registry sees it. */
export class TrackedLink implements Tracked {
  readonly link: Link;
  readonly peer: SpiffeId;
  readonly #state: State;
  readonly #upstreamName: string;
  readonly #onCause: (cause: Cause) => void;

  constructor(link: Link, upstream: Upstream, state: State, onCause: (cause: Cause) => void) {
    this.link = link;
    this.peer = link.peer;
    this.#state = state;
    this.#upstreamName = `${upstream.namespace}/${upstream.name}`;
    this.#onCause = onCause;
  }

  get proof(): Proof {
    return this.link;
  }

  recheck(): Cause | null {
    const facts = this.#state.facts.value;
    if (facts === null) {
      return null;
    }
    const { killed, byName, snapshot } = facts;
    if (killed.has(this.peer) || killed.has(snapshot.workload.spiffeId)) {
      return "identity-killed";
    }
    if (byName.get(this.#upstreamName)?.spiffeId !== this.peer) {
      return "policy-changed";
    }
    return null;
  }

  close(cause: Cause): void {
    this.#onCause(cause);
    this.link.pipe.destroy();
  }

  tick(): void {}

  drain(): void {}
}

export class Pool {
  readonly #transport: Transport;
  readonly #state: State;
  readonly #connections: Connections;
  readonly #now: () => number;
  readonly #onFailure: (upstream: Upstream, failure: LinkFailure) => void;
  readonly #onClosed: (cause: Cause) => void;
  #upstream: Upstream;
  readonly #idle: HttpBack[] = [];
  readonly #links = new Map<HttpBack, Link>();
  readonly #waiting: HttpFront[] = [];
  #dials = 0;

  constructor(
    upstream: Upstream,
    transport: Transport,
    state: State,
    connections: Connections,
    now: () => number,
    onFailure: (upstream: Upstream, failure: LinkFailure) => void,
    onClosed: (cause: Cause) => void,
  ) {
    this.#upstream = upstream;
    this.#transport = transport;
    this.#state = state;
    this.#connections = connections;
    this.#now = now;
    this.#onFailure = onFailure;
    this.#onClosed = onClosed;
  }

  /** The upstream as the newest snapshot describes it. */
  update(upstream: Upstream): void {
    this.#upstream = upstream;
  }

  /** HOT: an idle connection, the one used last. */
  take(): HttpBack | null {
    for (;;) {
      const back = this.#idle.pop();
      if (back === undefined) {
        return null;
      }
      if (this.#usable(back)) {
        return back;
      }
      back.pipe.destroy();
    }
  }

  #usable(back: HttpBack): boolean {
    const link = this.#links.get(back);
    // After a rotation new requests go out under the new SVID; what is under way ends under the old one.
    return (
      link !== undefined &&
      !back.pipe.destroyed &&
      link.own === this.#state.svid.value &&
      this.#upstream.endpoints.includes(link.endpoint) &&
      this.#now() - back.idleSinceMs < Math.min(IDLE_MS, back.idleLimitMs)
    );
  }

  open(front: HttpFront): void {
    this.#waiting.push(front);
    if (this.#dials < Math.min(MAX_DIALS, this.#waiting.length)) {
      this.#dial();
    }
  }

  cancel(front: HttpFront): void {
    const at = this.#waiting.indexOf(front);
    if (at >= 0) {
      this.#waiting.splice(at, 1);
    }
  }

  release(back: HttpBack): void {
    back.idleSinceMs = this.#now();
    if (!this.#usable(back) || (this.#waiting.length === 0 && this.#idle.length >= MAX_IDLE)) {
      back.pipe.destroy();
      return;
    }
    const front = this.#waiting.shift();
    if (front === undefined) {
      this.#idle.push(back);
    } else {
      front.opened(back);
    }
  }

  #dial(): void {
    this.#dials++;
    this.#transport.open(this.#upstream, (link, failure) => {
      this.#dials--;
      if (link !== null) {
        this.#add(link);
      } else if (failure !== null) {
        this.#onFailure(this.#upstream, failure);
        // Whoever waits would meet the same: nobody waits for a second timeout.
        for (const front of this.#waiting.splice(0)) {
          front.unavailable(failure.answer);
        }
      }
      if (this.#dials < Math.min(MAX_DIALS, this.#waiting.length)) {
        this.#dial();
      }
    });
  }

  #add(link: Link): void {
    const tracked = new TrackedLink(link, this.#upstream, this.#state, this.#onClosed);
    const back = new HttpBack(link.pipe);
    back.home = this;
    this.#links.set(back, link);
    this.#connections.add(tracked);
    link.pipe.onceGone(() => {
      this.#connections.delete(tracked);
      this.#links.delete(back);
      const at = this.#idle.indexOf(back);
      if (at >= 0) {
        this.#idle.splice(at, 1);
      }
    });
    // RACE: registered above, checked here: facts that changed during the handshake are seen.
    const cause = tracked.recheck();
    if (cause !== null) {
      tracked.close(cause);
      this.#waiting.shift()?.unavailable(UPSTREAM_RESET);
      return;
    }
    this.release(back);
  }

  /** Closes what was idle for too long, or was opened under an SVID that is no longer ours. */
  tick(): void {
    for (const back of [...this.#idle]) {
      if (!this.#usable(back)) {
        back.pipe.destroy();
      }
    }
  }

  close(): void {
    for (const back of this.#idle.splice(0)) {
      back.pipe.destroy();
    }
  }
}
