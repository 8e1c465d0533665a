/** The facts a sidecar holds: what it enforces, who it is, whom it believes. Each changes by one assignment. */
import type { Snapshot, Upstream } from "../core/api/snapshot.ts";
import { Cell } from "../core/base/cell.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import type { Enforcer } from "./enforce.ts";

/** A snapshot made ready for use. */
export interface Facts {
  readonly snapshot: Snapshot;
  readonly enforcer: Enforcer;
  /** Identities that are cut off, with the order that did it. */
  readonly killed: ReadonlyMap<SpiffeId, string>;
  readonly byIdentity: ReadonlyMap<SpiffeId, Upstream>;
  /** By name, and by `namespace/name`. */
  readonly byName: ReadonlyMap<string, Upstream>;
}

export function makeFacts(snapshot: Snapshot, enforcer: Enforcer): Facts {
  const byName = new Map<string, Upstream>();
  for (const upstream of snapshot.upstreams) {
    byName.set(`${upstream.namespace}/${upstream.name}`, upstream);
    // Where two namespaces have a service of one name, the one of our own namespace is meant.
    const known = byName.get(upstream.name);
    if (known === undefined || upstream.namespace === snapshot.workload.namespace) {
      byName.set(upstream.name, upstream);
    }
  }
  return {
    snapshot,
    enforcer,
    killed: new Map(snapshot.kills.map(({ spiffeId, order }) => [spiffeId, order])),
    byIdentity: new Map(snapshot.upstreams.map((upstream) => [upstream.spiffeId, upstream])),
    byName,
  };
}

/** INVARIANT: facts never go back to null: a stale snapshot stays in force; with none at all everything is refused. */
export class State {
  readonly facts: Cell<Facts | null> = new Cell<Facts | null>(null);
  /** The service's own SVID; null while, or since, its process is not there. */
  readonly svid: Cell<X509Svid | null> = new Cell<X509Svid | null>(null);
  readonly bundles: Cell<X509Bundles> = new Cell<X509Bundles>(new Map());
}

/** Time as the data path reads it: set about once a second, so that reading it costs nothing. */
export class CoarseTime {
  nowMs: number;

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  readonly read: () => number = () => this.nowMs;
}
