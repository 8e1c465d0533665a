/** The agent's own administration: a socket that only its user can open. */
import { fromJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { Agent } from "../../gen/everyhop/agent/agent_pb.js";
import type { Handlers } from "../../io/rpc/adapter.ts";
import { toStatus } from "../../io/rpc/errors.ts";
import { listenUnix, type RpcListener } from "../../io/rpc/listen.ts";
import { type ExplainOptions, explainProcess, explainSelectors } from "./explain.ts";

export interface AdminOptions extends ExplainOptions {
  readonly socket: string;
}

const SOCKET_MODE = 0o600;

/** Serves until closed. Errors: `port-in-use`, `unavailable`. */
export function serveAgentAdmin(options: AdminOptions): Promise<RpcListener<null>> {
  const handlers: Handlers<typeof Agent> = {
    explain(call, callback) {
      const { pid, selectors } = call.request;
      const answer = async () =>
        selectors.length > 0 ? explainSelectors(options, selectors) : explainProcess(options, pid);
      answer().then(
        (document) => callback(null, fromJson(StructSchema, document)),
        (error) => callback(toStatus(error)),
      );
    },
  };
  return listenUnix<null>(options.socket, SOCKET_MODE, {
    services: [{ service: Agent, handlers }],
    identify: () => null,
  });
}
