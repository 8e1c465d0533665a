/** How calls of the agent's own APIs end. */
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata, status as Status, type StatusObject } from "@grpc/grpc-js";
import { EveryhopError } from "../../core/base/errors.ts";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { toStatus } from "../../io/rpc/errors.ts";

/** SPEC: Broker API §4.8. */
export type BrokerReason = "WORKLOAD_REFERENCE_INVALID" | "WORKLOAD_NOT_FOUND" | "WORKLOAD_NOT_ENTITLED";

/** The end of a call, as grpc-js takes it. Messages are exact where a specification or its clients know them. */
export type CallEnd = Pick<StatusObject, "code" | "details"> & { readonly metadata?: Metadata };

export const NO_IDENTITY: CallEnd = { code: Status.PERMISSION_DENIED, details: "no identity issued" };
export const NO_HEADER: CallEnd = { code: Status.INVALID_ARGUMENT, details: "security header missing from request" };
export const NO_AUDIENCE: CallEnd = { code: Status.INVALID_ARGUMENT, details: "audience must be specified" };
export const ATTESTATION_FAILED: CallEnd = { code: Status.UNAVAILABLE, details: "workload attestation failed" };

export function invalid(details: string): CallEnd {
  return { code: Status.INVALID_ARGUMENT, details };
}

export function unavailable(details: string): CallEnd {
  return { code: Status.UNAVAILABLE, details };
}

/** The Workload API's answer where its caller could not be attested: what went wrong is for the log, not for the caller. */
export function workloadAttestationEnd(error: unknown): CallEnd {
  const denied = error instanceof EveryhopError && (error.code === "permission-denied" || error.code === "not-found");
  return denied ? NO_IDENTITY : ATTESTATION_FAILED;
}

/** "No identity issued", with what the workload may know of why. */
export function noIdentityEnd(metadata: Readonly<Record<string, string>>): CallEnd {
  const { code, details } = NO_IDENTITY;
  return withErrorInfo(code, details, { reason: "NO_IDENTITY_ISSUED", domain: "everyhop.dev", metadata });
}

/** A broker's answer with its machine-readable reason. */
export function brokerEnd(
  code: number,
  details: string,
  reason: BrokerReason,
  metadata: Readonly<Record<string, string>>,
): CallEnd {
  return withErrorInfo(code, details, { reason, domain: "spiffe.io", metadata });
}

function withErrorInfo(code: number, details: string, error: MessageInitShape<typeof ErrorInfoSchema>): CallEnd {
  const info = create(ErrorInfoSchema, error);
  const status = create(StatusSchema, { code, message: details, details: [anyPack(ErrorInfoSchema, info)] });
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
  return { code, details, metadata };
}

/** The end that `error` is: a handler's own, or that of any error. What is not ours says nothing of itself. */
export function endOf(error: unknown): CallEnd {
  return error instanceof Ended ? error.end : toStatus(error);
}

/** Thrown by handlers to end a call in a certain way. */
export class Ended extends Error {
  readonly end: CallEnd;
  constructor(end: CallEnd) {
    super(end.details);
    this.end = end;
  }
}
