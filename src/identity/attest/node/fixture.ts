/** For tests: both halves of a node attestation, joined without a wire. */
import { parseTrustDomain, type SpiffeId } from "../../../core/spiffe/id.ts";
import type { Attempt, MakeProof, NodeProof, NodeVerifier, ProvenNode } from "./proof.ts";

export const TRUST_DOMAIN = parseTrustDomain("example.com");

export interface JoinOptions {
  readonly now?: number;
  readonly address?: string;
  readonly attested?: readonly SpiffeId[];
  /** Changes what travels, as an attacker may. */
  readonly payload?: (bytes: Uint8Array) => Uint8Array;
  readonly answer?: (bytes: Uint8Array) => Uint8Array;
}

export async function prove(
  verifier: NodeVerifier,
  make: MakeProof | NodeProof,
  options: JoinOptions = {},
): Promise<ProvenNode> {
  const { payload = (bytes) => bytes, answer = (bytes) => bytes, attested = [] } = options;
  const proof = typeof make === "function" ? await make() : make;
  const attempt: Attempt = {
    trustDomain: TRUST_DOMAIN,
    address: options.address ?? "127.0.0.1",
    now: options.now ?? Date.now(),
    challenge: async (bytes) => answer(await proof.answer(bytes)),
    isAttested: (id) => attested.includes(id),
  };
  try {
    return await verifier.verify(payload(proof.payload), attempt);
  } finally {
    await proof.close?.();
  }
}

/** What is sent, changed as JSON. */
export const asJson =
  (change: (document: Record<string, unknown>) => unknown) =>
  (bytes: Uint8Array): Uint8Array =>
    Buffer.from(JSON.stringify(change(JSON.parse(Buffer.from(bytes).toString()))));

export const refusal = (code: string, message: RegExp) => (error: unknown) =>
  (error as { code?: string }).code === code && message.test((error as Error).message);
