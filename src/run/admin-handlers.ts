import type { Metadata } from "@grpc/grpc-js";
import type { ControlAdmin } from "../control/admin.ts";
import type { EveryhopError } from "../core/base/errors.ts";
import type { Admin } from "../gen/everyhop/admin/admin_pb.js";
import type { GuardedHandlers } from "../identity/server/guard.ts";
import { fromStatus } from "../io/rpc/errors.ts";

type Callback = (error: { code: number; details: string; metadata: Metadata } | null, answer?: never) => void;
type Unary = (call: { readonly request: unknown }, callback: Callback) => void;

/** The control plane's handlers in the guard's form, so that they stand behind the same table of who may call what. */
export function handlersOf(admin: ControlAdmin): Pick<GuardedHandlers<typeof Admin>, keyof ControlAdmin> {
  const guarded = Object.entries(admin as unknown as Record<string, Unary>).map(([name, handler]) => [
    name,
    (request: unknown) =>
      new Promise((resolve, reject) => {
        handler({ request }, (error, answer) => {
          if (error === null) {
            resolve(answer);
          } else {
            reject(asError(error));
          }
        });
      }),
  ]);
  return Object.fromEntries(guarded) as Pick<GuardedHandlers<typeof Admin>, keyof ControlAdmin>;
}

function asError(status: { code: number; details: string; metadata: Metadata }): EveryhopError {
  return fromStatus(Object.assign(new Error(status.details), status));
}
