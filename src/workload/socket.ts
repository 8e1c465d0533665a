import { EveryhopError } from "../core/base/errors.ts";

/** Where agents listen unless told otherwise. */
export const DEFAULT_SOCKET = "unix:///run/everyhop/agent.sock";

/**
 * The gRPC target of a socket given as `unix:///abs/path` or as an absolute path. Errors: `invalid-argument`.
 * SPEC: Workload Endpoint §4.
 */
export function socketTarget(socket: string): string {
  const path = socket.startsWith("unix://") ? socket.slice("unix://".length) : socket.replace(/^unix:/, "");
  if (!path.startsWith("/") || path.includes("?") || path.includes("#")) {
    throw new EveryhopError("invalid-argument", `\`${socket}\` is not a unix socket's address`, {
      hint: "write it as `unix:///run/everyhop/agent.sock`",
    });
  }
  return `unix:${path}`;
}

/** The Workload API's socket: as given, else as the environment says, else the default. */
export function workloadSocket(given: string | undefined, environment: NodeJS.ProcessEnv): string {
  return given ?? environment.SPIFFE_ENDPOINT_SOCKET ?? DEFAULT_SOCKET;
}
