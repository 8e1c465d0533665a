/** The agent's own administration, and those who may act for others: a socket that only its user can open. */
import { fromJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { Agent } from "../../gen/everyhop/agent/agent_pb.js";
import type { Handlers } from "../../io/rpc/adapter.ts";
import { toStatus } from "../../io/rpc/errors.ts";
import { listenUnix, type RpcListener } from "../../io/rpc/listen.ts";
import { type Caller, LIMITS } from "./callers.ts";
import { type DelegatedOptions, delegatedService } from "./delegated.ts";
import { type ExplainOptions, explainProcess, explainSelectors } from "./explain.ts";

export interface AdminOptions extends ExplainOptions, Omit<DelegatedOptions, "callerOf"> {
  readonly socket: string;
}

const SOCKET_MODE = 0o600;
/** SPEC: SPIRE's admin socket is its group's too; here only where somebody may act for others. */
const DELEGATES_SOCKET_MODE = 0o660;

/** Serves until closed. Errors: `port-in-use`, `unavailable`. */
export async function serveAgentAdmin(options: AdminOptions): Promise<RpcListener<Caller>> {
  const { callers, delegates, log } = options;
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
  const callerOf = (call: { getPeer(): string }): Caller => listener.peerOf(call);
  const mode = delegates.size > 0 ? DELEGATES_SOCKET_MODE : SOCKET_MODE;
  const listener = await listenUnix<Caller>(options.socket, mode, {
    services: [{ service: Agent, handlers }, delegatedService({ ...options, callerOf })],
    identify: (socket) => callers.admit(socket),
    onGone: (caller) => callers.forget(caller),
    onRefused: (error) => log.warn("refused a connection", { error }),
    ...LIMITS,
  });
  return listener;
}
