/**
 * The server's side of one delta-xDS stream, as values: a peer, what it should have, what it said; out come the next peer and
 * what to send. States, not events: whatever happened meanwhile, a peer is sent the difference between what it holds and what
 * it should hold now, with at most one response per type on its way.
 * SPEC: Envoy xDS protocol, "Incremental xDS"; https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
 */
import { EveryhopError } from "../base/errors.ts";

/** A resource as offered; `version` names its content: equal versions, equal content. */
export interface Resource<B> {
  readonly version: string;
  readonly body: B;
}

/** Everything one peer may have at the world version `world`, by type and name. A type not in `types` is unknown. */
export interface Offer<B> {
  readonly world: number;
  readonly types: ReadonlyMap<string, ReadonlyMap<string, Resource<B>>>;
}

export interface DeltaRequest {
  readonly type: string;
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  /** Name → version of what the client holds from an earlier stream; read in the first request of a type. */
  readonly initialVersions: ReadonlyMap<string, string>;
  /** Of the response this answers; empty for none. */
  readonly nonce: string;
  /** Why the client refused that response; null where it took it. */
  readonly error: string | null;
}

export interface DeltaResponse<B> {
  readonly type: string;
  readonly nonce: string;
  readonly world: number;
  readonly resources: readonly { readonly name: string; readonly version: string; readonly body: B }[];
  readonly removed: readonly string[];
}

/** What is known of one stream. */
export interface Peer {
  readonly types: ReadonlyMap<string, Watch>;
  /** Number of the last response, from which its nonce is made. */
  readonly responses: number;
}

/** One type as one peer watches it. A version of null means: not there. */
interface Watch {
  readonly wildcard: boolean;
  readonly names: ReadonlySet<string>;
  /** What the client has confirmed. INVARIANT: nothing in flight and nothing refused is in here. */
  readonly held: ReadonlyMap<string, string | null>;
  /** What it refused last, and why: not sent again until the content changes. */
  readonly refused: ReadonlyMap<string, { readonly version: string | null; readonly error: string }>;
  readonly flight: Flight | null;
  /** The newest world version at which the client held all it should. 0: never. */
  readonly inForce: number;
}

interface Flight {
  readonly nonce: string;
  readonly world: number;
  readonly versions: ReadonlyMap<string, string | null>;
}

export interface Step<B> {
  readonly peer: Peer;
  readonly send: readonly DeltaResponse<B>[];
}

/** `pending`: something is on its way, or nothing was asked for yet. */
export type PeerState = "synced" | "pending" | "rejected";

const WILDCARD = "*";
const MAX_NAMES = 10_000;
const MAX_NAME_LENGTH = 512;

export const NEW_PEER: Peer = { types: new Map(), responses: 0 };

/** The client sent `request`. Errors: `invalid-argument` (unknown type), `resource-exhausted` (too many names). */
export function receive<B>(peer: Peer, request: DeltaRequest, offer: Offer<B>): Step<B> {
  if (!offer.types.has(request.type)) {
    throw new EveryhopError("invalid-argument", `unknown resource type \`${request.type.slice(0, MAX_NAME_LENGTH)}\``, {
      hint: `known are: ${[...offer.types.keys()].join(", ")}`,
    });
  }
  const before = peer.types.get(request.type);
  const watch = before === undefined ? firstWatch(request) : laterWatch(before, request);
  if (watch.names.size + watch.held.size > MAX_NAMES) {
    throw new EveryhopError("resource-exhausted", `more than ${MAX_NAMES} names of one resource type`);
  }
  return settle({ ...peer, types: new Map(peer.types).set(request.type, watch) }, offer);
}

/** The offer changed: sends what each type that waits for no answer lacks. */
export function settle<B>(peer: Peer, offer: Offer<B>): Step<B> {
  let { types, responses } = peer;
  const send: DeltaResponse<B>[] = [];
  for (const [type, watch] of peer.types) {
    if (watch.flight !== null) {
      continue;
    }
    const offered = offer.types.get(type) ?? new Map<string, Resource<B>>();
    let next = withoutOldRefusals(watch, offered);
    const versions = difference(next, offered);
    if (versions.size > 0) {
      const flight = { nonce: String(++responses), world: offer.world, versions };
      next = { ...next, flight };
      send.push(response(type, flight, offered));
    } else if (next.refused.size === 0 && next.inForce !== offer.world) {
      // Nothing the client has is touched by the newer world: it is in force there without a word on the wire.
      next = { ...next, inForce: offer.world };
    }
    if (next !== watch) {
      types = new Map(types).set(type, next);
    }
  }
  return { peer: { types, responses }, send };
}

/** Whether the peer holds all it should of what it asked for. */
export function stateOf<B>(peer: Peer, offer: Offer<B>): PeerState {
  if (rejectionOf(peer, offer) !== null) {
    return "rejected";
  }
  return inForce(peer) === offer.world ? "synced" : "pending";
}

/** Why the client refuses something it should have now, or null. */
export function rejectionOf<B>(peer: Peer, offer: Offer<B>): string | null {
  for (const [type, watch] of peer.types) {
    const { refused } = withoutOldRefusals(watch, offer.types.get(type) ?? new Map());
    for (const { error } of refused.values()) {
      return error;
    }
  }
  return null;
}

/** The world version whose resources the peer has in force; 0 where it has confirmed none. */
export function inForce(peer: Peer): number {
  let least = Number.POSITIVE_INFINITY;
  for (const watch of peer.types.values()) {
    least = Math.min(least, watch.inForce);
  }
  return Number.isFinite(least) ? least : 0;
}

/** The version of one resource that the client has confirmed; null where it has none. */
export function heldVersion(peer: Peer, type: string, name: string): string | null {
  return peer.types.get(type)?.held.get(name) ?? null;
}

/** SPEC: a first request without names, or with `*`, asks for all there is. */
function firstWatch(request: DeltaRequest): Watch {
  const names = new Set(request.subscribe.map(checkedName));
  const wildcard = names.delete(WILDCARD) || names.size === 0;
  const held = new Map<string, string | null>();
  for (const [name, version] of request.initialVersions) {
    if (wildcard || names.has(name)) {
      held.set(checkedName(name), version);
    }
  }
  return { wildcard, names, held, refused: new Map(), flight: null, inForce: 0 };
}

function laterWatch(before: Watch, request: DeltaRequest): Watch {
  const watch = answered(before, request);
  if (request.subscribe.length === 0 && request.unsubscribe.length === 0) {
    return watch;
  }
  const names = new Set(watch.names);
  const held = new Map(watch.held);
  const refused = new Map(watch.refused);
  const flying = new Map(watch.flight?.versions);
  let { wildcard } = watch;
  const forget = (name: string): void => {
    held.delete(name);
    refused.delete(name);
    flying.delete(name);
  };
  for (const name of request.unsubscribe) {
    names.delete(name);
    wildcard &&= name !== WILDCARD;
    forget(name);
  }
  for (const name of request.subscribe.map(checkedName)) {
    // SPEC: who subscribes again to what it has is sent it again.
    forget(name);
    wildcard ||= name === WILDCARD;
    if (name !== WILDCARD) {
      names.add(name);
    }
  }
  if (!wildcard) {
    [...held.keys(), ...flying.keys()].filter((name) => !names.has(name)).forEach(forget);
  }
  const flight = watch.flight === null ? null : { ...watch.flight, versions: flying };
  return { ...watch, wildcard, names, held, refused, flight };
}

/** Takes the answer to what is in flight. RACE: an answer to anything older, or to nothing, says nothing. */
function answered(watch: Watch, request: DeltaRequest): Watch {
  const { flight } = watch;
  if (flight === null || request.nonce !== flight.nonce) {
    return watch;
  }
  const refused = new Map(watch.refused);
  if (request.error !== null) {
    for (const [name, version] of flight.versions) {
      refused.set(name, { version, error: request.error });
    }
    return { ...watch, refused, flight: null };
  }
  const held = new Map(watch.held);
  for (const [name, version] of flight.versions) {
    refused.delete(name);
    if (version === null && !watch.names.has(name)) {
      held.delete(name);
    } else {
      held.set(name, version);
    }
  }
  // What it refused and has not been offered anew is still not in force.
  return { ...watch, held, refused, flight: null, inForce: refused.size === 0 ? flight.world : watch.inForce };
}

/** What the client lacks: name → the version it should have, null where it should have none. */
function difference<B>(watch: Watch, offered: ReadonlyMap<string, Resource<B>>): Map<string, string | null> {
  const versions = new Map<string, string | null>();
  for (const name of watchedNames(watch, offered)) {
    const wanted = offered.get(name)?.version ?? null;
    // SPEC: a name asked for that does not exist is answered as removed, once, so that the client stops waiting.
    const has = watch.held.get(name);
    if (has !== wanted && watch.refused.get(name)?.version !== wanted) {
      versions.set(name, wanted);
    }
  }
  return versions;
}

function* watchedNames<B>(watch: Watch, offered: ReadonlyMap<string, Resource<B>>): Iterable<string> {
  yield* watch.names;
  if (watch.wildcard) {
    for (const name of new Set([...offered.keys(), ...watch.held.keys()])) {
      if (!watch.names.has(name)) {
        yield name;
      }
    }
  }
}

/** A refusal stands for as long as that very content is on offer. */
function withoutOldRefusals<B>(watch: Watch, offered: ReadonlyMap<string, Resource<B>>): Watch {
  const standing = [...watch.refused].filter(([name, { version }]) => (offered.get(name)?.version ?? null) === version);
  return standing.length === watch.refused.size ? watch : { ...watch, refused: new Map(standing) };
}

function response<B>(type: string, flight: Flight, offered: ReadonlyMap<string, Resource<B>>): DeltaResponse<B> {
  const resources: { name: string; version: string; body: B }[] = [];
  const removed: string[] = [];
  for (const name of flight.versions.keys()) {
    const resource = offered.get(name);
    if (resource === undefined) {
      removed.push(name);
    } else {
      resources.push({ name, ...resource });
    }
  }
  return { type, nonce: flight.nonce, world: flight.world, resources, removed };
}

function checkedName(name: string): string {
  if (name === "" || name.length > MAX_NAME_LENGTH) {
    throw new EveryhopError("invalid-argument", `a resource name has 1 to ${MAX_NAME_LENGTH} characters`);
  }
  return name;
}
