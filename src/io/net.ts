/** TCP addresses and listeners. */
import { createServer, isIP, type Server, type Socket } from "node:net";
import { EveryhopError } from "../core/base/errors.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Parses `host:port` or `[v6]:port`; null where it is none. Port 0 (any free one) is allowed. */
export function parseAddress(text: string): Address | null {
  const parts = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^:[\]\s/]+)):(\d{1,5})$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3]);
  if (host === undefined || port > 65_535 || (parts?.[1] !== undefined && isIP(host) !== 6)) {
    return null;
  }
  return { host, port };
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** An IPv4 address that came through a `::` listener is an IPv4 address. */
export function plainIp(address: string | undefined): string {
  return address === undefined
    ? ""
    : address.startsWith("::ffff:") && address.includes(".")
      ? address.slice(7)
      : address;
}

export interface TcpListener {
  /** As bound: the port is the real one. */
  readonly address: Address;
  /** Stops accepting; open connections stay. */
  close(): void;
}

const MAX_CONNECTIONS = 10_000;
const KEEP_ALIVE_MS = 60_000;

/** Listens; each connection is half-open capable, without Nagle's delay, and nothing of it is read yet. */
export async function listenTcp(address: Address, accept: (socket: Socket) => void): Promise<TcpListener> {
  const server = createServer(
    { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
    accept,
  );
  server.maxConnections = MAX_CONNECTIONS;
  await listening(server, address);
  const bound = server.address();
  const port = typeof bound === "object" && bound !== null ? bound.port : address.port;
  return {
    address: { host: address.host, port },
    close: () => {
      server.close();
    },
  };
}

function listening(server: Server, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const inUse = error.code === "EADDRINUSE";
      const name = formatAddress(address);
      reject(
        new EveryhopError(inUse ? "port-in-use" : "unavailable", `cannot listen on \`${name}\`: ${error.message}`, {
          hint: inUse ? "stop the process that holds it, or choose another port" : "check the address and your rights",
          cause: error,
        }),
      );
    });
    server.listen({ ...address, backlog: 1_024 }, () => {
      server.removeAllListeners("error");
      // Accepting can fail later (no file descriptors left): the listener goes on.
      server.on("error", () => {});
      resolve();
    });
  });
}
