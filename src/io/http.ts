/** A small HTTP server for what people and Prometheus look at: exact paths, GET only, nothing of the request is kept. */
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { SecureContextOptions } from "node:tls";
import type { Cell } from "../core/base/cell.ts";
import { EveryhopError } from "../core/base/errors.ts";

export interface HttpAnswer {
  readonly status?: number;
  readonly contentType: string;
  readonly body: string;
}

export interface HttpListener {
  readonly host: string;
  readonly port: number;
  close(): Promise<void>;
}

const MAX_CONNECTIONS = 200;

const LIMITS: ServerOptions = { requestTimeout: 10_000, headersTimeout: 10_000, maxHeaderSize: 8_192 };
const HANDSHAKE_MS = 10_000;

interface Address {
  readonly host: string;
  readonly port: number;
}
type Routes = Readonly<Record<string, () => HttpAnswer | Promise<HttpAnswer>>>;

/** Listens and answers each path of `routes`. Errors: `port-in-use`, `unavailable`. */
export function listenHttp(address: Address, routes: Routes): Promise<HttpListener> {
  return listen(createServer(LIMITS, handlerOf(routes)), address);
}

/** As `listenHttp`, over TLS; the certificate follows `credentials`. No certificate is asked of the client. */
export async function listenHttps(
  address: Address,
  credentials: Cell<SecureContextOptions>,
  routes: Routes,
): Promise<HttpListener> {
  const options = { ...LIMITS, ...credentials.value, handshakeTimeout: HANDSHAKE_MS, ALPNProtocols: ["http/1.1"] };
  const server = createHttpsServer(options, handlerOf(routes));
  // A client that fails the handshake, or resets, is no event of ours.
  server.on("tlsClientError", (_error, socket) => socket.destroy());
  const listener = await listen(server, address);
  const unwatch = credentials.watch((next) => server.setSecureContext(next));
  return {
    ...listener,
    close: () => {
      unwatch();
      return listener.close();
    },
  };
}

function handlerOf(routes: Routes) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    answer(request, response, routes).catch(() => response.destroy());
  };
}

function listen(server: Server, address: Address): Promise<HttpListener> {
  server.maxConnections = MAX_CONNECTIONS;
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const inUse = error.code === "EADDRINUSE";
      const name = `${address.host}:${address.port}`;
      reject(
        new EveryhopError(inUse ? "port-in-use" : "unavailable", `cannot listen on \`${name}\`: ${error.message}`, {
          hint: inUse ? "stop the process that holds it, or choose another port" : "check the address and your rights",
          cause: error,
        }),
      );
    });
    server.listen(address, () => {
      const bound = server.address();
      const port = typeof bound === "object" && bound !== null ? bound.port : address.port;
      const close = () =>
        new Promise<void>((done) => {
          server.close(() => done());
          server.closeAllConnections();
        });
      resolve({ host: address.host, port, close });
    });
  });
}

async function answer({ method, url = "" }: IncomingMessage, response: ServerResponse, routes: Routes): Promise<void> {
  const path = url.split("?", 1)[0] ?? "";
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (route === undefined || (method !== "GET" && method !== "HEAD")) {
    response.writeHead(route === undefined ? 404 : 405, { "content-type": "text/plain" }).end();
    return;
  }
  const { status = 200, contentType, body } = await route();
  response.writeHead(status, { "content-type": contentType, "x-content-type-options": "nosniff" });
  response.end(method === "HEAD" ? undefined : body);
}
