/** Around every handler: who calls, may it, how often, and what an error becomes. */
import type { DescMethod, Message, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import {
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import { EveryhopError } from "../../core/base/errors.ts";
import { covers } from "../../core/entries/role.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { Log } from "../../io/log.ts";
import { rpcStatus } from "../../io/rpc/errors.ts";
import type { Service } from "../../io/rpc/listen.ts";
import type { Authorized, Caller, Callers } from "./callers.ts";
import { type ChangeLog, failedItems } from "./change-log.ts";
import { type Limit, METHODS } from "./methods.ts";
import type { IdentityMetrics } from "./metrics.ts";
import type { RateLimiter } from "./rate-limit.ts";

export interface CallContext extends Authorized {
  readonly caller: Caller;
  /** Draws `count` more on the peer's allowance of this method (a batch counts its items). */
  take(count: number): Promise<void>;
}

type Answer<T> = T | Promise<T>;

type Guarded<M extends GenServiceMethods[string]> = M["methodKind"] extends "unary"
  ? (request: MessageShape<M["input"]>, context: CallContext) => Answer<MessageInitShape<M["output"]>>
  : M["methodKind"] extends "server_streaming"
    ? (
        call: ServerWritableStream<MessageShape<M["input"]>, MessageInitShape<M["output"]>>,
        context: CallContext,
      ) => Answer<void>
    : (
        call: ServerDuplexStream<MessageShape<M["input"]>, MessageInitShape<M["output"]>>,
        context: CallContext,
      ) => Answer<void>;

/** Handlers that may throw, and know who calls. A method without one is not implemented. */
export type GuardedHandlers<S> = S extends GenService<infer M> ? { [K in keyof M]?: Guarded<M[K]> } : never;

export interface GuardOptions {
  readonly callers: Callers;
  readonly limiters: Readonly<Record<Limit, RateLimiter>>;
  readonly log: Log;
  /** Keeps every change that an administrator asks for. */
  readonly changes: ChangeLog;
  /** Told of each call that ended. */
  readonly called: IdentityMetrics["called"];
  readonly now: () => number;
  /** Who is at the other end of a call's connection. */
  readonly callerOf: (call: { getPeer(): string }) => Caller;
}

type AnyCall = ServerUnaryCall<unknown, unknown> &
  ServerWritableStream<unknown, unknown> &
  ServerDuplexStream<unknown, unknown>;
type AnyHandler = (first: unknown, context: CallContext) => unknown;

/** `service` with its handlers behind the guard, as a listener takes it. */
export function guard<M extends GenServiceMethods>(
  service: GenService<M>,
  handlers: GuardedHandlers<GenService<M>>,
  options: GuardOptions,
): Service {
  const guarded: Record<string, unknown> = {};
  for (const method of service.methods) {
    const handler = (handlers as Record<string, AnyHandler | undefined>)[method.localName];
    guarded[method.localName] = guardMethod(`${service.typeName}/${method.name}`, method, handler, options);
  }
  return { service, handlers: guarded };
}

function guardMethod(path: string, method: DescMethod, handler: AnyHandler | undefined, options: GuardOptions) {
  const run = async (call: AnyCall, first: unknown): Promise<unknown> => {
    const caller = options.callerOf(call);
    const done = logChange(path, caller, options.log);
    try {
      const context = await admit(path, caller, options);
      refuseOutOfScope(path, first, context);
      if (handler === undefined) {
        throw new EveryhopError("not-supported", `\`${path}\` is not implemented`);
      }
      const answer = isChange(path)
        ? await recorded(options.changes, { path, method, request: first as Message, caller }, () =>
            handler(first, context),
          )
        : await handler(first, context);
      done(status.OK);
      return answer;
    } catch (error) {
      done(rpcStatus(error).code);
      throw error;
    }
  };
  const failed = (error: unknown, seconds: number | null) => {
    report(path, error, options.log);
    const failure = rpcStatus(error);
    options.called(path, failure.code, seconds);
    return failure;
  };
  if (method.methodKind === "unary") {
    return (call: AnyCall, reply: sendUnaryData<unknown>) => {
      const start = options.now();
      const seconds = () => (options.now() - start) / 1_000;
      run(call, call.request).then(
        (answer) => {
          options.called(path, status.OK, seconds());
          reply(null, answer);
        },
        (error: unknown) => reply(failed(error, seconds())),
      );
    };
  }
  return (call: AnyCall) => {
    call.on("error", () => {});
    run(call, call).then(
      () => options.called(path, status.OK, null),
      (error: unknown) => call.emit("error", failed(error, null)),
    );
  };
}

const READS = /\/(Get|List|Count|Status|Why|Audit|Explain|Check|Watch)/;

/** What an administrator or a server below this one may call, and does more than read. */
function isChange(path: string): boolean {
  const callers = METHODS.get(path)?.callers ?? [];
  return (callers.includes("local") || callers.includes("downstream")) && !READS.test(path);
}

/** INVARIANT: a change is on record before it is made, and what came of it before that is answered. */
async function recorded(
  changes: ChangeLog,
  asked: Parameters<ChangeLog["asked"]>[0],
  change: () => unknown,
): Promise<unknown> {
  const ended = await changes.asked(asked);
  try {
    const answer = await change();
    await ended(status.OK, failedItems(answer));
    return answer;
  } catch (error) {
    await ended(rpcStatus(error).code, 0);
    throw error;
  }
}

/** Every change that is asked for stands in the log too, those that were refused included. */
function logChange(path: string, caller: Caller, log: Log): (code: number) => void {
  if (!isChange(path)) {
    return () => {};
  }
  const who = caller.kind === "local" ? { caller: "local", ...caller.process } : { caller: caller.svid?.id ?? null };
  return (code) => log.info("an administrator's call", { method: path, ...who, code: status[code] });
}

async function admit(path: string, caller: Caller, options: GuardOptions): Promise<CallContext> {
  const authorized = await options.callers.authorize(path, caller);
  const limit = METHODS.get(path)?.limit;
  const take = async (count: number): Promise<void> => {
    if (limit !== undefined && caller.kind === "remote") {
      // Who proved an identity has an allowance of its own, wherever it comes from.
      await options.limiters[limit].take(caller.svid?.id ?? caller.address, count);
    }
  };
  // A batch of SVIDs counts its items itself; all else counts as one.
  if (!path.includes("/BatchNew")) {
    await take(1);
  }
  return { caller, ...authorized, take };
}

/** INVARIANT: what a role does is done to what it covers. Lists and batches look at each item themselves. */
function refuseOutOfScope(path: string, request: unknown, { scope }: CallContext): void {
  const subject = scope === null ? null : (METHODS.get(path)?.subject?.(request as never) ?? null);
  if (subject !== null && !covers(scope, subject as SpiffeId)) {
    throw new EveryhopError("permission-denied", `\`${subject.slice(0, 256)}\` is not among what your role covers`);
  }
}

function report(path: string, error: unknown, log: Log): void {
  if (!(error instanceof EveryhopError) || error.code === "internal") {
    log.error("a call failed", { method: path, error: error instanceof Error ? error.stack : error });
  } else if (error.code === "storage-failed") {
    log.error("a call failed", { method: path, error: error.message, hint: error.hint });
  } else {
    log.debug("a call was refused", { method: path, code: error.code, error: error.message });
  }
}
