/** One AttestAgent call: what the node says, a message at a time, and what it is challenged with. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { EveryhopError } from "../../core/base/errors.ts";
import type { AttestAgentRequest, AttestAgentResponseSchema } from "../../gen/spire/api/server/agent/v1/agent_pb.js";

export type AttestCall = ServerDuplexStream<AttestAgentRequest, MessageInitShape<typeof AttestAgentResponseSchema>>;

/** How long a node may take over each message. */
const MESSAGE_TIMEOUT_MS = 30_000;

export interface AttestConversation {
  /** Errors: `invalid-argument` for what is missing. */
  params(): Promise<{ readonly type: string; readonly payload: Uint8Array; readonly csr: Uint8Array }>;
  challenge(bytes: Uint8Array): Promise<Uint8Array>;
}

/** Reads only what is waited for: a node that sends more fills nothing but its own window. */
export function converse(call: AttestCall): AttestConversation {
  const messages = call[Symbol.asyncIterator]() as AsyncIterator<AttestAgentRequest>;
  const gone = new Promise<never>((_, reject) => {
    call.once("cancelled", () => reject(new EveryhopError("unavailable", "the node ended the attestation")));
  });
  gone.catch(() => {});
  const next = async (missing: string): Promise<AttestAgentRequest["step"]> => {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new EveryhopError("unavailable", "no message of the attestation in time")),
      MESSAGE_TIMEOUT_MS,
    );
    try {
      const { done, value } = await Promise.race([messages.next(), gone, late.promise]);
      if (done === true) {
        throw new EveryhopError("invalid-argument", missing);
      }
      return value.step;
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    async params() {
      const step = await next("malformed param: missing attestation data");
      if (step.case !== "params" || step.value.data === undefined || step.value.data.type === "") {
        throw new EveryhopError("invalid-argument", "malformed param: missing attestation data");
      }
      const { data, params } = step.value;
      if (data.payload.length === 0) {
        throw new EveryhopError("invalid-argument", "malformed param: missing attestation data payload");
      }
      if (params === undefined || params.csr.length === 0) {
        throw new EveryhopError("invalid-argument", "malformed param: missing CSR");
      }
      return { type: data.type, payload: data.payload, csr: params.csr };
    },
    async challenge(bytes) {
      call.write({ step: { case: "challenge", value: bytes } });
      const step = await next("the challenge was not answered");
      if (step.case !== "challengeResponse") {
        throw new EveryhopError("invalid-argument", "the challenge was not answered");
      }
      return step.value;
    },
  };
}
