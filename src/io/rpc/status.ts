/** Errors as gRPC carries them: status, message, and typed details in `grpc-status-details-bin`. */
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata, status } from "@grpc/grpc-js";
import { CODES } from "../../core/base/codes.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";

/** What grpc-js takes as the end of a call that failed. */
export interface RpcStatus {
  readonly code: number;
  readonly details: string;
  readonly metadata?: Metadata;
}

const DETAILS_KEY = "grpc-status-details-bin";
const details = new WeakMap<EveryhopError, { readonly schema: DescMessage; readonly value: object }>();

/** Gives an error a typed detail that the other side can act on. */
export function withDetail<S extends DescMessage>(
  error: EveryhopError,
  schema: S,
  value: MessageInitShape<S>,
): EveryhopError {
  details.set(error, { schema, value: value as object });
  return error;
}

/** The status of any error. What is not ours says nothing of itself to the peer: log it where it is caught. */
export function rpcStatus(error: unknown): RpcStatus {
  if (!(error instanceof EveryhopError)) {
    return { code: status.INTERNAL, details: "internal error" };
  }
  const code = CODES[error.code].grpc;
  const detail = details.get(error);
  if (detail === undefined) {
    return { code, details: error.message };
  }
  const { schema, value } = detail;
  const any = anyPack(schema, create(schema, value as MessageInitShape<DescMessage>));
  const metadata = new Metadata();
  const bytes = toBinary(StatusSchema, create(StatusSchema, { code, message: error.message, details: [any] }));
  metadata.set(DETAILS_KEY, Buffer.from(bytes));
  return { code, details: error.message, metadata };
}

/** The item's status in the answer of a batch call, which never fails as a whole for one bad item. */
export function itemStatus(error: unknown): { readonly code: number; readonly message: string } {
  const { code, details: message } = rpcStatus(error);
  return { code, message };
}

export const OK_STATUS = { code: status.OK, message: "OK" } as const;
