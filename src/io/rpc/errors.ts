/** Errors over gRPC: our code, message, hint and issues travel beside the status, so that the other end shows the same. */
import { Metadata, type ServiceError, type StatusObject, status } from "@grpc/grpc-js";
import { CODES, type Code } from "../../core/base/codes.ts";
import { EveryhopError, type Issue, toEveryhopError } from "../../core/base/errors.ts";

const KEY = "everyhop-error-bin";
/** Trailers are small: a peer may refuse more than 8 KiB of them. */
const MAX_BYTES = 6_000;

/** What a handler answers a call with that failed. An `internal` error's message stays here: it is for our own log. */
export function toStatus(thrown: unknown): Partial<StatusObject> {
  const { code, message, hint, issues } = toEveryhopError(thrown);
  const metadata = new Metadata();
  const shown = code === "internal" ? "internal error" : message;
  const full = { code, message: shown, hint, issues };
  const text = [full, { ...full, issues: issues.slice(0, 5) }, { code, hint }]
    .map((body) => JSON.stringify(body))
    .find((body) => Buffer.byteLength(body) <= MAX_BYTES);
  if (text !== undefined) {
    metadata.set(KEY, Buffer.from(text));
  }
  return { code: CODES[code].grpc, details: shown, metadata };
}

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

function codeOf(grpc: number): Code {
  if (grpc === status.DEADLINE_EXCEEDED || grpc === status.CANCELLED) {
    return "unavailable";
  }
  const rows = Object.entries(CODES) as [Code, (typeof CODES)[Code]][];
  const found = rows.find(([code, row]) => row.grpc === grpc && code !== "usage" && code !== "config-invalid");
  return found?.[0] ?? "internal";
}

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && "details" in thrown && "code" in thrown && typeof thrown.code === "number";
}
