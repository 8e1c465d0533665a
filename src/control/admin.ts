/** The control plane's part of everyhop.admin.v1.Admin: the CLI and the dashboard ask here. */
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import type { StatusDocument, WhyDocument } from "../core/api/admin.ts";
import type { Admin } from "../gen/everyhop/admin/admin_pb.js";
import type { Handlers } from "../io/rpc/adapter.ts";
import { toStatus } from "../io/rpc/errors.ts";
import type { KillSwitch } from "./kill.ts";

export type ControlAdmin = Pick<Handlers<typeof Admin>, "status" | "why" | "kill" | "restore">;

interface AdminOptions {
  readonly status: () => Promise<StatusDocument>;
  readonly why: (id: string) => WhyDocument;
  readonly killSwitch: KillSwitch;
}

export function adminHandlers({ status, why, killSwitch }: AdminOptions): ControlAdmin {
  return {
    status: answer(() => status()),
    why: answer(async ({ id }) => why(id)),
    kill: answer(({ spiffeId, force }) => killSwitch.kill(spiffeId, force)),
    restore: answer(({ spiffeId }) => killSwitch.restore(spiffeId)),
  };
}

type Unary<Q> = (
  call: { readonly request: Q },
  callback: (error: ReturnType<typeof toStatus> | null, reply?: Struct) => void,
) => void;

function answer<Q>(handle: (request: Q) => Promise<object>): Unary<Q> {
  return ({ request }, callback) => {
    handle(request).then(
      (document) => callback(null, toStruct(document)),
      (error) => callback(toStatus(error)),
    );
  };
}

/** A document as a Struct; nulls are kept, absent fields stay absent. */
function toStruct(document: object): Struct {
  return fromJson(StructSchema, JSON.parse(JSON.stringify(document)) as JsonValue);
}
