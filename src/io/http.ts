/** A small HTTP server for what people and Prometheus look at: exact paths, GET only, nothing of the request is kept. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
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

/** Listens and answers each path of `routes`. Errors: `port-in-use`, `unavailable`. */
export function listenHttp(
  address: { readonly host: string; readonly port: number },
  routes: Readonly<Record<string, () => HttpAnswer | Promise<HttpAnswer>>>,
): Promise<HttpListener> {
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 10_000 }, (request, response) => {
    answer(request, response, routes).catch(() => response.destroy());
  });
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

async function answer(
  { method, url = "" }: IncomingMessage,
  response: ServerResponse,
  routes: Readonly<Record<string, () => HttpAnswer | Promise<HttpAnswer>>>,
): Promise<void> {
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
