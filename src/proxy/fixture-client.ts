/** For tests: clients that say exactly what they are told, and applications that answer it. */
import http from "node:http";
import { connect, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { pem, pemChain } from "../io/tls.ts";

/** A certificate chain with its key, as a client presents it. */
export interface ClientIdentity {
  readonly chain: readonly Uint8Array[];
  readonly keyDer: Uint8Array;
}

export const plain = (port: number): Promise<Socket> =>
  opened(connect({ port, host: "127.0.0.1", allowHalfOpen: true }));

/** Resolves after the handshake as the client sees it: in TLS 1.3 the server may still refuse. */
export function mtls(port: number, identity: ClientIdentity | null): Promise<TLSSocket> {
  const own = identity === null ? {} : { cert: pemChain(identity.chain), key: pem("PRIVATE KEY", identity.keyDer) };
  const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, minVersion: "TLSv1.3", ...own });
  return new Promise((resolve, reject) => {
    socket.once("secureConnect", () => resolve(socket));
    socket.once("error", reject);
  });
}

function opened(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
  });
}

/** Writes `bytes` and collects what comes until the other side closes. */
export function untilClosed(socket: Socket, bytes: string | Buffer | null = null): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
    });
    socket.on("error", () => {});
    socket.once("end", () => socket.end());
    socket.once("close", () => resolve(text));
    if (bytes !== null) {
      socket.write(bytes, "latin1");
    }
  });
}

const ignore = (): void => {};

/** Collects what comes until it matches. Rejects when the connection closes before. */
export function untilMatch(socket: Socket, pattern: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const onData = (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (pattern.test(text)) {
        socket.off("data", onData);
        socket.off("close", onClose);
        socket.off("error", ignore);
        resolve(text);
      }
    };
    const onClose = () => reject(new Error(`closed after ${JSON.stringify(text)}`));
    socket.on("data", onData);
    socket.on("error", ignore);
    socket.once("close", onClose);
  });
}

/** An application that speaks HTTP. */
export function httpApp(handler: http.RequestListener): (socket: Socket) => void {
  const server = http.createServer({ keepAliveTimeout: 60_000 }, handler);
  return (socket) => {
    server.emit("connection", socket);
  };
}

/** Answers 200 with the request's method, target and body length. */
export const echoApp: (socket: Socket) => void = httpApp((request, response) => {
  let length = 0;
  request.on("data", (chunk: Buffer) => {
    length += chunk.length;
  });
  request.on("end", () => response.end(`${request.method} ${request.url} ${length}`));
});

export interface Reply {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

/** One request through Node's own client. */
export function ask(port: number, options: http.RequestOptions & { readonly body?: string } = {}): Promise<Reply> {
  const { body, ...rest } = options;
  return new Promise((resolve, reject) => {
    const request = http.request({ host: "127.0.0.1", port, agent: false, ...rest }, (response) => {
      let text = "";
      response.setEncoding("latin1");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
}
