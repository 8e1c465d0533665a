/** Asks the admin service of a running mesh for one of its documents. */
import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import { credentials, status } from "@grpc/grpc-js";
import { EveryhopError } from "../core/base/errors.ts";
import { Admin } from "../gen/everyhop/admin/admin_pb.js";
import { makeClient, type RpcClient } from "../io/rpc/adapter.ts";
import { fromStatus } from "../io/rpc/errors.ts";
import { adminTarget, type MeshOptions } from "./find-mesh.ts";

/**
 * The document that `ask` gets of the mesh that `options` names. Errors: what the mesh answered, `unavailable` where nobody
 * listens, `permission-denied` where the socket is another user's.
 */
export async function askAdmin<T>(
  options: MeshOptions,
  ask: (admin: RpcClient<typeof Admin>) => Promise<Struct>,
): Promise<T> {
  const target = adminTarget(options);
  const client = makeClient(Admin, target, credentials.createInsecure(), {
    // A mesh of thousands of policies has a long status.
    "grpc.max_receive_message_length": -1,
  });
  try {
    return toJson(StructSchema, await ask(client)) as JsonValue as T;
  } catch (error) {
    throw explain(error, target.replace(/^unix:/, ""));
  } finally {
    client.close();
  }
}

function explain(thrown: unknown, socket: string): EveryhopError {
  const error = fromStatus(thrown);
  const fromServer = (thrown as { metadata?: { get(key: string): unknown[] } }).metadata?.get("everyhop-error-bin");
  if ((thrown as { code?: unknown }).code !== status.UNAVAILABLE || (fromServer?.length ?? 0) > 0) {
    return error;
  }
  if (/EACCES/.test(error.message)) {
    return new EveryhopError("permission-denied", `\`${socket}\` is not open to this user`, {
      hint: "run the command as the user who started the mesh",
      cause: thrown,
    });
  }
  return new EveryhopError("unavailable", `nothing answers on \`${socket}\``, {
    hint: "the mesh may have ended: `everyhop up` starts it",
    cause: thrown,
  });
}
