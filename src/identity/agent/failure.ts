/** What a failed call of the node API means for the agent. */
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";
import { status as Status } from "@grpc/grpc-js";
import { EveryhopError, toEveryhopError } from "../../core/base/errors.ts";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import {
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
} from "../../gen/spire/api/types/status_pb.js";

export type NodeFailure =
  /** The server does not answer, or not now: the same call may succeed later. */
  | { readonly kind: "away"; readonly error: EveryhopError }
  /** The server knows this agent no more: it has to prove itself anew. */
  | { readonly kind: "attest-again"; readonly error: EveryhopError }
  /** The server will not have this agent. */
  | { readonly kind: "banned"; readonly error: EveryhopError }
  /** The server refuses what was asked for. */
  | { readonly kind: "refused"; readonly error: EveryhopError };

export const NEW_TOKEN = "make a new join token with `everyhop token generate` and start the agent with it";

/** Classifies what a call of the node API threw. SPEC: SPIRE, PermissionDeniedDetails. */
export function nodeFailure(thrown: unknown): NodeFailure {
  if (!isServiceError(thrown)) {
    const error = toEveryhopError(thrown);
    return { kind: error.code === "unavailable" ? "away" : "refused", error };
  }
  const options = { cause: thrown };
  const details = thrown.details || thrown.message;
  if (thrown.code === Status.PERMISSION_DENIED || thrown.code === Status.UNAUTHENTICATED) {
    const reason = denialReason(thrown);
    if (reason === Reason.AGENT_BANNED) {
      const hint = "an operator banned it; `everyhop agent evict` lifts the ban, and a new join token lets it in";
      return {
        kind: "banned",
        error: new EveryhopError("permission-denied", "this agent is banned", { ...options, hint }),
      };
    }
    if (reason !== null && reason !== Reason.UNKNOWN) {
      const message = `the server no longer accepts this agent: ${REASONS[reason] ?? details}`;
      return {
        kind: "attest-again",
        error: new EveryhopError("unauthenticated", message, { ...options, hint: NEW_TOKEN }),
      };
    }
    return {
      kind: "refused",
      error: new EveryhopError("permission-denied", `the server refuses: ${details}`, options),
    };
  }
  if (thrown.code === Status.UNAVAILABLE && UNKNOWN_AUTHORITY.test(details)) {
    const message = "the server's certificate is of an authority that this agent does not know";
    const hint =
      "were the server's authorities replaced? write its bundle (`everyhop bundle show --format pem`) to the agent's `trustBundle` file: a newer one is taken up at once";
    return { kind: "away", error: new EveryhopError("unavailable", message, { ...options, hint }) };
  }
  if (AWAY.has(thrown.code)) {
    return { kind: "away", error: new EveryhopError("unavailable", `the server is away: ${details}`, options) };
  }
  return {
    kind: "refused",
    error: new EveryhopError("failed-precondition", `the server refuses: ${details}`, options),
  };
}

/** An attestation that failed: mostly a token that does not exist, has expired or was used. */
export function attestationError(thrown: unknown): { readonly retry: boolean; readonly error: EveryhopError } {
  const failure = nodeFailure(thrown);
  if (failure.kind === "away") {
    return { retry: true, error: failure.error };
  }
  const { message, hint = NEW_TOKEN } = failure.error;
  return {
    retry: false,
    error: new EveryhopError("unauthenticated", `cannot join: ${message}`, { hint, cause: thrown }),
  };
}

/** What OpenSSL says where a chain leads to none of the authorities given, and what we say. */
const UNKNOWN_AUTHORITY = /unable to (verify|get) |self.signed certificate|no authority of the bundle/;

const AWAY = new Set<number>([
  Status.UNAVAILABLE,
  Status.DEADLINE_EXCEEDED,
  Status.CANCELLED,
  Status.RESOURCE_EXHAUSTED,
  Status.INTERNAL,
  Status.UNKNOWN,
  Status.ABORTED,
]);

const REASONS: Readonly<Partial<Record<Reason, string>>> = {
  [Reason.AGENT_EXPIRED]: "its SVID has expired",
  [Reason.AGENT_NOT_ATTESTED]: "it is not (or no longer) attested",
  [Reason.AGENT_NOT_ACTIVE]: "its SVID is not the active one; did another agent start from a copy of its data folder?",
  [Reason.AGENT_MUST_REATTEST]: "it has to attest again",
};

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && typeof (thrown as Partial<ServiceError>).code === "number";
}

function denialReason(error: ServiceError): Reason | null {
  const bytes = error.metadata?.get("grpc-status-details-bin")[0];
  if (!Buffer.isBuffer(bytes)) {
    return null;
  }
  try {
    for (const any of fromBinary(StatusSchema, bytes).details) {
      const details = anyUnpack(any, PermissionDeniedDetailsSchema);
      if (details !== undefined) {
        return details.reason;
      }
    }
  } catch {
    // Details that do not parse say nothing.
  }
  return null;
}
