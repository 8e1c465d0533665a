/** Errors over gRPC: our code, message, hint and issues, and typed details, travel beside the status. */
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { CODES, type Code } from "../../core/base/codes.ts";
import { EveryhopError, type Issue, toEveryhopError } from "../../core/base/errors.ts";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";

/** What grpc-js takes as the end of a call that failed. */
export interface RpcStatus {
  readonly code: number;
  readonly details: string;
  readonly metadata: Metadata;
}

/** Read by our own clients, which then show the same error. */
const KEY = "everyhop-error-bin";
/** Read by everyone else's: a google.rpc.Status. */
const DETAILS_KEY = "grpc-status-details-bin";
/** Trailers are small: a peer may refuse more than 8 KiB of them. */
const MAX_BYTES = 6_000;
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

/** What a handler answers a call with that failed. An `internal` error's message stays here: it is for our own log. */
export function toStatus(thrown: unknown): RpcStatus {
  const error = toEveryhopError(thrown);
  const { code, hint, issues } = error;
  const message = code === "internal" ? "internal error" : error.message;
  const metadata = new Metadata();
  const full = { code, message, hint, issues };
  const text = [full, { ...full, issues: issues.slice(0, 5) }, { code, hint }]
    .map((body) => JSON.stringify(body))
    .find((body) => Buffer.byteLength(body) <= MAX_BYTES);
  if (text !== undefined) {
    metadata.set(KEY, Buffer.from(text));
  }
  const grpc = CODES[code].grpc;
  const detail = details.get(error);
  if (detail !== undefined) {
    const any = anyPack(detail.schema, create(detail.schema, detail.value as MessageInitShape<DescMessage>));
    const bytes = toBinary(StatusSchema, create(StatusSchema, { code: grpc, message, details: [any] }));
    metadata.set(DETAILS_KEY, Buffer.from(bytes));
  }
  return { code: grpc, details: message, metadata };
}

export { toStatus as rpcStatus };

/** The item's status in the answer of a batch call, which never fails as a whole for one bad item. */
export function itemStatus(error: unknown): { readonly code: number; readonly message: string } {
  const { code, details: message } = toStatus(error);
  return { code, message };
}

export const OK_STATUS = { code: status.OK, message: "OK" } as const;

/** A failed call's error as one of ours. What another implementation sent is mapped by its status number. */
export function fromStatus(thrown: unknown): EveryhopError {
  if (!isServiceError(thrown)) {
    return toEveryhopError(thrown);
  }
  const sent = thrown.metadata?.get(KEY)[0];
  if (Buffer.isBuffer(sent)) {
    const body = parse(sent.toString());
    if (body !== null) {
      const options = { cause: thrown, issues: body.issues ?? [] };
      const { hint } = body;
      return new EveryhopError(
        body.code,
        body.message ?? thrown.details,
        hint === undefined ? options : { ...options, hint },
      );
    }
  }
  return new EveryhopError(codeOf(thrown.code), thrown.details || thrown.message, { cause: thrown });
}

interface Body {
  readonly code: Code;
  readonly message?: string;
  readonly hint?: string;
  readonly issues?: readonly Issue[];
}

function parse(text: string): Body | null {
  try {
    const body = JSON.parse(text) as Partial<Body> | null;
    const known = typeof body?.code === "string" && Object.hasOwn(CODES, body.code);
    return known ? (body as Body) : null;
  } catch {
    return null;
  }
}

/** Codes of this side's own files and command line; another side's status never means them. */
const LOCAL: ReadonlySet<Code> = new Set(["usage", "config-invalid", "file-missing", "storage-failed"]);

function codeOf(grpc: number): Code {
  if (grpc === status.DEADLINE_EXCEEDED || grpc === status.CANCELLED) {
    return "unavailable";
  }
  const rows = Object.entries(CODES) as [Code, (typeof CODES)[Code]][];
  const found = rows.find(([code, row]) => row.grpc === grpc && !LOCAL.has(code));
  return found?.[0] ?? "internal";
}

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && "details" in thrown && "code" in thrown && typeof thrown.code === "number";
}
