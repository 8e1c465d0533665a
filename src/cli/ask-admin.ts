/** Asks the admin service of a running mesh for one of its documents. */
import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import { Admin } from "../gen/everyhop/admin/admin_pb.js";
import type { RpcClient } from "../io/rpc/adapter.ts";
import { askServer } from "./ask-server.ts";
import type { MeshOptions } from "./find-mesh.ts";

/** The document that `ask` gets of the mesh that `options` names. Errors: as `askServer`. */
export async function askAdmin<T>(
  options: MeshOptions,
  ask: (admin: RpcClient<typeof Admin>) => Promise<Struct>,
): Promise<T> {
  return toJson(StructSchema, await askServer(options, Admin, ask)) as JsonValue as T;
}
