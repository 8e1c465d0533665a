/** One GET over a TLS connection of its own, whose peer is looked at before a byte is asked of it. */
import { type IncomingMessage, request } from "node:http";
import { connect, type TLSSocket } from "node:tls";
import { EveryhopError } from "../core/base/errors.ts";
import { peerChain } from "./tls.ts";

export interface GetOptions {
  /** PEM of the authorities that the server's name is checked against; null: `accept` alone decides. */
  readonly webAuthorities: readonly string[] | null;
  /** Says why the server is not to be asked, or null where it may be. */
  readonly accept: (peer: { readonly chain: readonly Uint8Array[]; readonly address: string }) => string | null;
  /** For all of it. */
  readonly timeoutMs: number;
  readonly maxBytes: number;
}

export interface GetAnswer {
  readonly status: number;
  /** `location`, as sent. */
  readonly location: string | null;
  readonly body: Uint8Array;
}

/** TLS 1.2 with these alone, or 1.3. Source: Mozilla's "intermediate" configuration. */
export const INTERMEDIATE_CIPHERS = [
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  ...["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"],
  ...["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"],
].join(":");

/** Redirects are answers like others. Errors: `unavailable`, with the cause. */
export async function getOverTls(url: URL, options: GetOptions): Promise<GetAnswer> {
  const signal = AbortSignal.timeout(options.timeoutMs);
  let socket: TLSSocket | null = null;
  try {
    const opened = await open(url, options, signal, (made) => {
      socket = made;
    });
    return await ask(url, opened, options.maxBytes, signal);
  } catch (error) {
    const message = signal.aborted ? `no answer within ${options.timeoutMs} ms` : (error as Error).message;
    throw new EveryhopError("unavailable", message, { cause: error });
  } finally {
    (socket as TLSSocket | null)?.destroy();
  }
}

function open(
  url: URL,
  { webAuthorities, accept }: GetOptions,
  signal: AbortSignal,
  made: (socket: TLSSocket) => void,
): Promise<TLSSocket> {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port: Number(url.port || 443),
      // A name for SNI; an address is none.
      ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
      minVersion: "TLSv1.2",
      ciphers: INTERMEDIATE_CIPHERS,
      ALPNProtocols: ["http/1.1"],
      rejectUnauthorized: webAuthorities !== null,
      ...(webAuthorities === null ? {} : { ca: [...webAuthorities] }),
    });
    made(socket);
    const failed = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    signal.addEventListener("abort", () => failed(new Error("too late")), { once: true });
    socket.once("error", failed);
    socket.once("secureConnect", () => {
      const refused = accept({ chain: peerChain(socket), address: socket.remoteAddress ?? "" });
      if (refused === null) {
        resolve(socket);
      } else {
        failed(new Error(refused));
      }
    });
  });
}

function ask(url: URL, socket: TLSSocket, maxBytes: number, signal: AbortSignal): Promise<GetAnswer> {
  return new Promise((resolve, reject) => {
    const asking = request({
      createConnection: () => socket,
      host: url.hostname,
      path: `${url.pathname}${url.search}`,
      headers: { host: url.host, accept: "application/json", connection: "close" },
      signal,
    });
    asking.once("error", reject);
    asking.once("response", (response) => read(response, maxBytes).then(resolve, reject));
    asking.end();
  });
}

async function read(response: IncomingMessage, maxBytes: number): Promise<GetAnswer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) {
      throw new Error(`the answer is longer than ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  const { location } = response.headers;
  return { status: response.statusCode ?? 0, location: location ?? null, body: Buffer.concat(chunks) };
}
