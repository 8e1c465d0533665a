import { EveryhopError } from "../../../../core/base/errors.ts";
import type { NodeProof } from "../proof.ts";

/** Proof of a node by a one-time token that an operator handed to it. SPEC: SPIRE, join_token: the token, no challenge. */
export function proveByJoinToken(token: string): NodeProof {
  return {
    type: "join_token",
    payload: new TextEncoder().encode(token),
    async answer() {
      throw new EveryhopError("unauthenticated", "the server challenges a join token, which has no answer");
    },
  };
}
