/** The control plane's part of everyhop.admin.v1.Admin: the CLI and the dashboard ask here. */
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import type { DenialDocument, StatusDocument } from "../core/api/admin.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import type { Admin } from "../gen/everyhop/admin/admin_pb.js";
import type { Handlers } from "../io/rpc/adapter.ts";
import { toStatus } from "../io/rpc/errors.ts";
import type { KillSwitch } from "./kill.ts";
import type { Reports } from "./reports.ts";

export type ControlAdmin = Pick<Handlers<typeof Admin>, "status" | "why" | "kill" | "restore">;

interface AdminOptions {
  readonly status: () => Promise<StatusDocument>;
  readonly killSwitch: KillSwitch;
  readonly reports: Reports;
}

export function adminHandlers({ status, killSwitch, reports }: AdminOptions): ControlAdmin {
  return {
    status: answer(() => status()),
    why: answer(async ({ id }) => why(id, reports)),
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

/** The denial with that id. Errors: `not-found`. */
function why(id: string, reports: Reports): DenialDocument {
  const found = reports.denials.find(id);
  if (found === null) {
    const near = suggest(id, reports.denials.ids());
    throw new EveryhopError("not-found", `no denial has the id \`${id.slice(0, 128)}\``, {
      hint:
        near === null
          ? "the id is the `x-everyhop-denial` of the answer; the last few hundred of each service since the server started are known, older ones are in the sidecar's access log"
          : `did you mean \`${near}\`?`,
    });
  }
  return found;
}
