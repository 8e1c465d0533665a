import { EveryhopError } from "../../../../core/base/errors.ts";
import type { ProvenNode } from "../proof.ts";

const MAX_TOKEN_BYTES = 255;

/**
 * The token in a payload. Only its shape is checked: whether it exists, has not expired and was never used is for the store,
 * which has to take it away in the same step. Errors: `invalid-argument`.
 */
export function readJoinToken(payload: Uint8Array): string {
  const token = Buffer.from(payload).toString("latin1");
  // It becomes a segment of a SPIFFE ID. SPEC: SPIFFE-ID §2.2.
  if (payload.length > MAX_TOKEN_BYTES || !/^[A-Za-z0-9._-]+$/.test(token) || token === "." || token === "..") {
    throw new EveryhopError("invalid-argument", "the join token is malformed");
  }
  return token;
}

/** What a used token proves. */
export function provenByJoinToken(token: string): ProvenNode {
  return { path: `/spire/agent/join_token/${token}`, selectors: [], reattestable: false };
}
