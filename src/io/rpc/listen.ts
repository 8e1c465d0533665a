/** gRPC listeners whose connections are accepted, and their peers identified, by us: unix sockets and mutual TLS. */
import { chmodSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { createConnection, createServer, type Server as NetServer, type Socket } from "node:net";
import { dirname } from "node:path";
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from "node:tls";
import type { DescService } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type ServerOptions, type UntypedServiceImplementation } from "@grpc/grpc-js";
import type { Cell } from "../../core/base/cell.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { contextOptions } from "../tls.ts";
import { serviceDefinition } from "./adapter.ts";

export interface Service {
  readonly service: DescService;
  readonly handlers: object;
}

/** One listener; `peerOf(call)` gives what `identify` said of the connection a call came on. */
export interface RpcListener<P> {
  readonly address: string;
  /** The port bound, for TCP. */
  readonly port: number;
  peerOf(call: { getPeer(): string }): P;
  /** Closes every connection whose peer `which` holds of; returns how many. */
  disconnect(which: (peer: P) => boolean): number;
  close(): Promise<void>;
}

export interface ListenOptions<P, S extends Socket> {
  readonly services: readonly Service[];
  /** Says who the peer is; throwing refuses the connection (the error goes to `onRefused`). */
  readonly identify: (socket: S) => P;
  readonly onGone?: (peer: P) => void;
  readonly onRefused?: (error: unknown, remoteAddress: string) => void;
  /** Connections at once; more are closed at accept. */
  readonly maxConnections?: number;
  /** Limits of gRPC itself: message sizes, streams at once on one connection. */
  readonly grpc?: ServerOptions;
}

const DEFAULT_MAX_CONNECTIONS = 10_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Listens on a unix socket with the rights `mode`; a socket left behind by a dead process is replaced, a live one is not. */
export async function listenUnix<P>(
  path: string,
  mode: number,
  options: ListenOptions<P, Socket>,
): Promise<RpcListener<P>> {
  await prepareSocket(path);
  const connections = new Connections<P, Socket>(options);
  const server = createServer((socket) => connections.accept(socket));
  await listen(server, { path }, path);
  chmodSync(path, mode);
  return connections.listener(server, `unix://${path}`, 0);
}

/** Listens with TLS 1.3. A client certificate is asked for, never required: `identify` decides on what came. */
export async function listenTls<P>(
  address: { readonly host: string; readonly port: number },
  svid: Cell<X509Svid>,
  options: ListenOptions<P, TLSSocket>,
): Promise<RpcListener<P>> {
  const connections = new Connections<P, TLSSocket>(options);
  const server = serveTls(svid, connections, options);
  const port = await listen(server, address, `${address.host}:${address.port}`);
  return connections.listener(server, `${address.host}:${port}`, port);
}

/**
 * Listens with TLS 1.3 on a unix socket. `identify` gets both layers: the certificate, and the socket of which the kernel
 * knows the process; `admit` sees the latter as soon as it is there, before the peer says a word.
 */
export async function listenUnixTls<P, A>(
  path: string,
  mode: number,
  svid: Cell<X509Svid>,
  options: Omit<ListenOptions<P, TLSSocket>, "identify"> & {
    readonly admit: (socket: Socket) => A;
    readonly identify: (socket: TLSSocket, admitted: A) => P;
  },
): Promise<RpcListener<P>> {
  await prepareSocket(path);
  const admitted = new WeakMap<Socket, A>();
  const connections = new Connections<P, TLSSocket>({
    ...options,
    identify(socket) {
      // Undocumented, and there since TLS sockets wrap others; were it gone, nobody would be let in.
      const found = admitted.get((socket as TLSSocket & { _parent: Socket })._parent);
      if (found === undefined) {
        throw new EveryhopError("unauthenticated", "the socket under a TLS connection is not known");
      }
      return options.identify(socket, found);
    },
  });
  const tls = serveTls(svid, connections, options);
  const server = createServer((raw) => {
    raw.on("error", () => raw.destroy());
    try {
      admitted.set(raw, options.admit(raw));
      tls.emit("connection", raw);
    } catch (error) {
      raw.destroy();
      options.onRefused?.(error, "");
    }
  });
  server.on("close", () => tls.emit("close"));
  await listen(server, { path }, path);
  chmodSync(path, mode);
  return connections.listener(server, `unix://${path}`, 0);
}

/** A TLS server that hands each finished handshake to `connections`. Its certificate follows `svid` until it closes. */
function serveTls<P>(
  svid: Cell<X509Svid>,
  connections: Connections<P, TLSSocket>,
  { onRefused }: Pick<ListenOptions<P, TLSSocket>, "onRefused">,
): TlsServer {
  const server = createTlsServer({
    ...contextOptions(svid.value),
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: ["h2"],
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  });
  server.on("secureConnection", (socket) => connections.accept(socket));
  server.on("tlsClientError", (error, socket) => onRefused?.(error, socket.remoteAddress ?? ""));
  const unwatch = svid.watch((next) => server.setSecureContext(contextOptions(next)));
  server.on("close", unwatch);
  return server;
}

async function prepareSocket(path: string): Promise<void> {
  try {
    mkdirSync(dirname(path), { recursive: true });
  } catch (error) {
    throw new EveryhopError(
      "storage-failed",
      `cannot make the folder of the socket \`${path}\`: ${(error as Error).message}`,
      {
        hint: "make it for this user, or choose another socket path",
        cause: error,
      },
    );
  }
  await removeStaleSocket(path);
}

async function removeStaleSocket(path: string): Promise<void> {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there === undefined) {
    return;
  }
  if (!there.isSocket()) {
    throw new EveryhopError("failed-precondition", `\`${path}\` is there already and is no socket`, {
      hint: "choose another socket path",
    });
  }
  const alive = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (alive) {
    throw new EveryhopError("port-in-use", `\`${path}\` is in use by another process`, {
      hint: "stop it, or choose another socket path",
    });
  }
  rmSync(path, { force: true });
}

function listen(
  server: NetServer,
  where: { path: string } | { host: string; port: number },
  name: string,
): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const inUse = error.code === "EADDRINUSE";
      const hint = inUse
        ? "stop the process that holds it, or choose another port"
        : "check the address and your rights";
      reject(
        new EveryhopError(inUse ? "port-in-use" : "unavailable", `cannot listen on \`${name}\`: ${error.message}`, {
          hint,
          cause: error,
        }),
      );
    });
    server.listen(where, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

/** The open connections of one listener, each injected into a grpc-js server under a name of ours. */
class Connections<P, S extends Socket> {
  readonly #options: ListenOptions<P, S>;
  readonly #grpc: Server;
  readonly #injector: ReturnType<Server["createConnectionInjector"]>;
  readonly #open = new Map<string, { peer: P; socket: S }>();
  #next = 0;

  constructor(options: ListenOptions<P, S>) {
    this.#options = options;
    this.#grpc = new Server(options.grpc);
    this.#injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    for (const { service, handlers } of options.services) {
      this.#grpc.addService(serviceDefinition(service), handlers as UntypedServiceImplementation);
    }
  }

  accept(socket: S): void {
    const { identify, onGone, onRefused, maxConnections = DEFAULT_MAX_CONNECTIONS } = this.#options;
    socket.on("error", () => socket.destroy());
    const remote = socket.remoteAddress ?? "";
    try {
      if (this.#open.size >= maxConnections) {
        throw new EveryhopError("resource-exhausted", "too many connections");
      }
      const peer = identify(socket);
      const name = `peer-${this.#next++}`;
      this.#open.set(name, { peer, socket });
      socket.once("close", () => {
        this.#open.delete(name);
        onGone?.(peer);
      });
      // getPeer() of a call reads `remoteAddress`: it becomes the key under which `peerOf` finds the peer.
      Object.defineProperty(socket, "remoteAddress", { value: name });
      Object.defineProperty(socket, "remotePort", { value: undefined });
      this.#injector.injectConnection(socket);
    } catch (error) {
      socket.destroy();
      onRefused?.(error, remote);
    }
  }

  listener(server: NetServer, address: string, port: number): RpcListener<P> {
    return {
      address,
      port,
      peerOf: (call) => {
        const found = this.#open.get(call.getPeer().split(":")[0] ?? "");
        if (found === undefined) {
          throw new EveryhopError("unauthenticated", "the connection is gone");
        }
        return found.peer;
      },
      disconnect: (which) => {
        const doomed = [...this.#open.values()].filter(({ peer }) => which(peer));
        for (const { socket } of doomed) {
          socket.destroy();
        }
        return doomed.length;
      },
      close: () =>
        new Promise((resolve) => {
          server.close(() => resolve());
          this.#grpc.forceShutdown();
          for (const { socket } of this.#open.values()) {
            socket.destroy();
          }
        }),
    };
  }
}
