/** Where SPIRE's processes listen, and its command line looks for them, where nothing else is said. */
export const DEFAULT_SERVER_SOCKET = "/tmp/spire-server/private/api.sock";
export const DEFAULT_AGENT_SOCKET = "/tmp/spire-agent/public/api.sock";
