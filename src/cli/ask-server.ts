/** Asks the server of a running mesh, in SPIRE's services and our own. */
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { status } from "@grpc/grpc-js";
import { EveryhopError } from "../core/base/errors.ts";
import { makeClient, type RpcClient } from "../io/rpc/adapter.ts";
import { fromStatus } from "../io/rpc/errors.ts";
import type { MeshOptions } from "./find-mesh.ts";
import { type ServerChannel, serverChannel } from "./server-channel.ts";

/** An audit of a large mesh, or the status of thousands of policies, is more than the 4 MiB that a client takes by default. */
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;

/**
 * What `ask` gets of the server that `options` names. Errors: what the server answered; `unavailable` where nobody listens,
 * `permission-denied` where the socket is another user's.
 */
export async function askServer<M extends GenServiceMethods, T>(
  options: MeshOptions,
  service: GenService<M>,
  ask: (client: RpcClient<GenService<M>>) => Promise<T>,
): Promise<T> {
  const channel = await serverChannel(options);
  const limits = { "grpc.max_receive_message_length": MAX_ANSWER_BYTES };
  const client = makeClient(service, channel.target, channel.credentials, { ...channel.options, ...limits });
  try {
    return await ask(client);
  } catch (error) {
    throw explain(error, channel);
  } finally {
    client.close();
  }
}

function explain(thrown: unknown, { name }: ServerChannel): EveryhopError {
  const error = fromStatus(thrown);
  const fromServer = (thrown as { metadata?: { get(key: string): unknown[] } }).metadata?.get("everyhop-error-bin");
  if ((thrown as { code?: unknown }).code !== status.UNAVAILABLE || (fromServer?.length ?? 0) > 0) {
    return error;
  }
  if (/EACCES/.test(error.message)) {
    return new EveryhopError("permission-denied", `\`${name}\` is not open to this user`, {
      hint: "run the command as the user who started the server",
      cause: thrown,
    });
  }
  const why = /is `spiffe:|certificate/.test(error.message) ? `: ${error.message}` : "";
  return new EveryhopError("unavailable", `nothing answers on \`${name}\`${why}`, {
    hint: "the server may have ended: `everyhop up` or `everyhop server` starts it",
    cause: thrown,
  });
}

/** The item's status of a batch answer as an error; null where it is done. */
export function itemError(item: { readonly code: number; readonly message: string } | undefined): EveryhopError | null {
  return item === undefined || item.code === status.OK
    ? null
    : fromStatus(Object.assign(new Error(item.message), { code: item.code, details: item.message }));
}
