/** The node's half of a node attestation. SPEC: SPIRE, AttestAgent: `type` and `payload`, then a challenge at a time. */
export interface NodeProof {
  readonly type: string;
  readonly payload: Uint8Array;
  answer(challenge: Uint8Array): Promise<Uint8Array>;
}

/** What the server learns of a node that proved itself. */
export interface ProvenNode {
  /** Path of the agent's SPIFFE ID, `/spire/agent/<type>/…`. */
  readonly path: string;
  readonly selectors: readonly string[];
  /** Whether it can prove itself again, or has to renew its SVID instead. */
  readonly reattestable: boolean;
}
