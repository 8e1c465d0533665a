/** Requests byte for byte: HTTP/1.1 on a socket, so that no client library mends what is odd about them. */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Line } from "../../reference/generate-requests.ts";

export interface Identity {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

export interface Target {
  readonly ip: string;
  readonly port: number;
  readonly sourceIp: string;
  readonly identity: Identity | null;
  readonly sni: string | null;
}

export interface WireAnswer {
  /** The HTTP status; on TCP 0 = passed. -1: the connection was closed without an answer. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
}

const TIMEOUT_MS = 120_000;
const HELLO = "hello, hello, hello\n";

function open(target: Target): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const raw = connect({ host: target.ip, port: target.port, localAddress: target.sourceIp, noDelay: true });
    raw.once("error", reject);
    if (target.identity === null) {
      raw.once("connect", () => resolve(raw));
      return;
    }
    const { cert, key, ca } = target.identity;
    const servername = target.sni === null ? {} : { servername: target.sni };
    const secure = connectTls({ socket: raw, cert, key, ca, rejectUnauthorized: false, ...servername });
    secure.once("secureConnect", () => resolve(secure)).once("error", reject);
  });
}

/** Reads until `complete` says it has all, or the connection ends. */
function read(socket: Socket, complete: (text: string) => boolean): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const done = () => {
      socket.off("data", take).off("close", done).off("end", done);
      clearTimeout(timer);
      resolve(text);
    };
    const take = (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (complete(text)) {
        done();
      }
    };
    const timer = setTimeout(done, TIMEOUT_MS);
    socket.on("data", take).once("close", done).once("end", done);
  });
}

/** One TCP connection: whether the policies let it pass. */
export async function askTcp(target: Target): Promise<WireAnswer> {
  let socket: Socket;
  try {
    socket = await open(target);
  } catch {
    return { status: -1, headers: {} };
  }
  socket.on("error", () => {});
  // Envoy's filter decides when the first bytes come, and needs some to see that they are no TLS.
  socket.write(HELLO);
  const text = await read(socket, (sofar) => sofar.length >= HELLO.length);
  socket.destroy();
  return { status: text === HELLO ? 0 : -1, headers: {} };
}

/** Requests that go over one connection after the other: it is opened again where the answer closed it. */
export class HttpAsker {
  readonly #target: Target;
  #socket: Socket | null = null;

  constructor(target: Target) {
    this.#target = target;
  }

  async ask(bytes: Buffer, isHead: boolean): Promise<WireAnswer> {
    if (this.#socket === null || this.#socket.destroyed || this.#socket.readableEnded) {
      this.#socket = await open(this.#target);
      this.#socket.on("error", () => {});
    }
    this.#socket.write(bytes);
    const text = await read(this.#socket, (sofar) => isWhole(sofar, isHead));
    const answer = parseAnswer(text);
    if (answer.status < 0 || answer.status === 400 || answer.headers.connection === "close") {
      this.close();
    }
    return answer;
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = null;
  }
}

function isWhole(text: string, isHead: boolean): boolean {
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) {
    return false;
  }
  const length = isHead ? 0 : Number(/^content-length: (\d+)/im.exec(text.slice(0, end))?.[1] ?? 0);
  return text.length >= end + 4 + length;
}

function parseAnswer(text: string): WireAnswer {
  const [head = ""] = text.split("\r\n\r\n", 1);
  const [first = "", ...lines] = head.split("\r\n");
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(first)?.[1] ?? -1);
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return { status, headers };
}

/** The bytes of a request line; `token` is what was minted for it, null where nothing was. */
export function requestBytes(line: Line): Buffer {
  const request = line.request as {
    method: string;
    path: string;
    host: string;
    headers: Record<string, string[]>;
    token?: string;
  };
  const lines = [`${request.method} ${request.path} HTTP/1.1`, `host: ${request.host}`];
  const { remoteIp } = line.source as { remoteIp?: string };
  if (remoteIp !== undefined) {
    lines.push(`x-forwarded-for: ${remoteIp}`);
  }
  if (request.token !== undefined) {
    lines.push(`authorization: Bearer ${request.token}`);
  }
  for (const [name, values] of Object.entries(request.headers)) {
    lines.push(...values.map((value) => `${name}: ${value}`));
  }
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "utf8");
}
