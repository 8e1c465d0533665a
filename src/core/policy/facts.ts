/** What a decision is made from: facts about the connection, made once, and facts about one request on it. */
import { type IpAddress, parseIp, unmapped } from "../base/cidr.ts";

export interface PeerFacts {
  /** The identity mutual TLS proved, without `spiffe://`; null on plaintext. */
  readonly principal: string | null;
  /** The address of the other end of the connection; empty where unknown. */
  readonly sourceIp: string;
  /** The address a PROXY header or X-Forwarded-For told; else the same as `sourceIp`. */
  readonly remoteIp: string;
  readonly destinationIp: string;
  /** The workload's port: the port in the mesh. */
  readonly destinationPort: number;
  /** The server name of the TLS handshake, in any case; null without one. */
  readonly sni: string | null;
}

/**
 * One request, as the proxy will forward it. All text is wire text: one character per byte.
 * `null` for method, path or host is a missing attribute (only requests written by hand lack one).
 */
export interface HttpFacts {
  readonly method: string | null;
  /** Normalised, with its query. */
  readonly path: string | null;
  /** `:authority`, as received: case and port kept. */
  readonly host: string | null;
  /** Values by lower-case name, one per line, after `headers.ts` joined those that Envoy joins; null where absent. */
  header(name: string): readonly string[] | null;
  /** Claims of a validated token, or null. */
  readonly auth: Claims | null;
  /** Where X-Forwarded-For of this request told another address than the connection's. */
  readonly remoteIp?: string | null;
}

/** The payload of a validated token, space-delimited claims already split into lists. */
export type Claims = Readonly<Record<string, unknown>>;

/** A request with what every path and host comparison needs, worked out once per decision. */
export interface HttpView {
  facts: HttpFacts;
  /** Without its query. */
  path: string | null;
  /** Lower case. */
  host: string | null;
  remote: IpAddress | null;
}

/** HOT: called per decision; must not allocate. `request` is null on TCP. */
export type Test = (peer: Peer, request: HttpView | null) => boolean;

/** A rule that a connection leaves open. */
export interface OpenRule {
  readonly id: number;
  /** What is left to test per request; null where alternatives make that depend. */
  readonly requestTests: readonly Test[] | null;
}

/** How many lists of rules a peer keeps what they leave open of. */
const LISTS = 5;

/** A peer with its addresses parsed, and what the evaluator keeps of it: all in one object, as each further one is a cache miss. */
export class Peer {
  readonly principal: string | null;
  readonly source: IpAddress | null;
  readonly remote: IpAddress | null;
  readonly destination: IpAddress | null;
  readonly port: number;
  /** Lower case, as Envoy compares it. */
  readonly sni: string | null;
  /** Whose rules `open` is about: other policies, other rules. */
  openOf: object | null = null;
  /** Per list of rules those left open for this connection; null where not yet asked. */
  readonly open: (readonly OpenRule[] | null)[] = new Array(LISTS).fill(null);
  /** The address that its last request told of. */
  toldText: string | null = null;
  told: IpAddress | null = null;

  constructor(facts: PeerFacts) {
    const source = directAddress(facts.sourceIp);
    this.principal = facts.principal;
    this.source = source;
    this.remote = facts.remoteIp === facts.sourceIp ? source : parseIp(facts.remoteIp);
    this.destination = directAddress(facts.destinationIp);
    this.port = facts.destinationPort;
    this.sni = facts.sni === null || facts.sni === "" ? null : facts.sni.toLowerCase();
  }
}

const peers = new WeakMap<PeerFacts, Peer>();

/** HOT: the same facts object is parsed once; who keeps the peer itself spares the look-up. */
export function peerOf(facts: PeerFacts | Peer): Peer {
  if (facts instanceof Peer) {
    return facts;
  }
  let peer = peers.get(facts);
  if (peer === undefined) {
    peer = new Peer(facts);
    peers.set(facts, peer);
  }
  return peer;
}

/** An address of the socket itself: on a dual-stack socket IPv4 arrives mapped. */
function directAddress(text: string): IpAddress | null {
  const address = parseIp(text);
  return address === null ? null : unmapped(address);
}
