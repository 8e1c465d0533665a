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

/** A peer with its addresses parsed. */
export interface Peer {
  readonly principal: string | null;
  readonly source: IpAddress | null;
  readonly remote: IpAddress | null;
  readonly destination: IpAddress | null;
  readonly port: number;
  /** Lower case, as Envoy compares it. */
  readonly sni: string | null;
  /** What the policies that decided last leave open for this connection; kept by the evaluator. */
  readonly memory: PeerMemory;
}

export interface PeerMemory {
  /** Whose rules `alive` is about: other policies, other rules. */
  of: object | null;
  /** Per list of rules those left open; null where not yet asked. */
  readonly alive: (readonly number[] | null)[];
  /** The address that its last request told of. */
  remoteText: string | null;
  remote: IpAddress | null;
}

const peers = new WeakMap<PeerFacts, Peer>();

/** HOT: the same facts object is parsed once. */
export function peerOf(facts: PeerFacts): Peer {
  const known = peers.get(facts);
  if (known !== undefined) {
    return known;
  }
  const peer = preparePeer(facts);
  peers.set(facts, peer);
  return peer;
}

function preparePeer(facts: PeerFacts): Peer {
  const source = directAddress(facts.sourceIp);
  return {
    principal: facts.principal,
    source,
    remote: facts.remoteIp === facts.sourceIp ? source : parseIp(facts.remoteIp),
    destination: directAddress(facts.destinationIp),
    port: facts.destinationPort,
    sni: facts.sni === null || facts.sni === "" ? null : facts.sni.toLowerCase(),
    memory: { of: null, alive: [null, null, null, null, null], remoteText: null, remote: null },
  };
}

/** An address of the socket itself: on a dual-stack socket IPv4 arrives mapped. */
function directAddress(text: string): IpAddress | null {
  const address = parseIp(text);
  return address === null ? null : unmapped(address);
}
