import type { SpiffeId, TrustDomain } from "../../../core/spiffe/id.ts";

/** The node's half of a node attestation. SPEC: SPIRE, AttestAgent: `type` and `payload`, then a challenge at a time. */
export interface NodeProof {
  readonly type: string;
  readonly payload: Uint8Array;
  answer(challenge: Uint8Array): Promise<Uint8Array>;
  /** Ends what had to run while the proof was under way. */
  close?(): Promise<void>;
}

/** Makes a proof for one attempt: what it is made of (a token's file, a certificate) may have been replaced since the last. */
export type MakeProof = () => Promise<NodeProof>;

/** What the server learns of a node that proved itself. */
export interface ProvenNode {
  /** Path of the agent's SPIFFE ID, `/spire/agent/<type>/…`. */
  readonly path: string;
  /** `type:value`, the type being the attestation's. */
  readonly selectors: readonly string[];
  /** Whether it can prove itself again, or has to renew its SVID instead. */
  readonly reattestable: boolean;
  /** Good for one agent: who comes with it again is refused until the agent is evicted. */
  readonly once?: boolean;
}

/** What a verifier may ask and know while a node proves itself. */
export interface Attempt {
  readonly trustDomain: TrustDomain;
  /** The peer's IP address. */
  readonly address: string;
  readonly now: number;
  /** Sends a challenge and gives the answer. */
  challenge(bytes: Uint8Array): Promise<Uint8Array>;
  /** Whether an agent of that ID is there already; asked before anything costly is done for it. */
  isAttested(id: SpiffeId): boolean;
}

/** The server's half, of one kind. */
export interface NodeVerifier {
  readonly type: string;
  /**
   * Errors: `invalid-argument` for what is malformed, `permission-denied` for what proves nothing, `unavailable` where who has to
   * be asked does not answer.
   */
  verify(payload: Uint8Array, attempt: Attempt): Promise<ProvenNode>;
}
