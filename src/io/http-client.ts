/** An HTTP client for other programs' APIs (container runtimes, Kubernetes): JSON over a unix socket or TLS, bounded in time and memory. */
import { type ClientRequest, request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import { EveryhopError } from "../core/base/errors.ts";
import { peerCredentials } from "./peer.ts";

/** Where an API is, and how to know it. */
export type ApiEndpoint =
  /** `ownerUid`: whose process has to listen there, whatever the path leads to. */
  | { readonly kind: "unix"; readonly socket: string; readonly ownerUid?: number }
  | { readonly kind: "http"; readonly host: string; readonly port: number }
  | {
      readonly kind: "https";
      readonly host: string;
      readonly port: number;
      /** The name its certificate has to have, where that is not `host`. */
      readonly serverName?: string;
      /** PEM; null: its certificate is not looked at. */
      readonly ca: string | null;
      readonly client?: { readonly cert: string; readonly key: string };
    };

export interface ApiRequest {
  readonly method?: "GET" | "POST";
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** For the whole exchange. */
  readonly timeoutMs: number;
  readonly maxBytes: number;
}

export interface ApiAnswer {
  readonly status: number;
  /** As parsed; undefined where the body is no JSON. */
  readonly body: unknown;
}

/** How an endpoint is called in messages. */
export function describeEndpoint(endpoint: ApiEndpoint): string {
  return endpoint.kind === "unix"
    ? `unix://${endpoint.socket}`
    : `${endpoint.kind}://${endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}`;
}

/** Asks and reads the whole answer. Errors: `unavailable` where none comes in time, or one longer than allowed. */
export async function callApi(endpoint: ApiEndpoint, request: ApiRequest): Promise<ApiAnswer> {
  const signal = AbortSignal.timeout(request.timeoutMs);
  try {
    const response = await open(endpoint, request, signal);
    const text = await readBody(response, request.maxBytes);
    return { status: response.statusCode ?? 0, body: parseJson(text) };
  } catch (error) {
    throw failure(endpoint, request, signal.aborted, error);
  }
}

/**
 * Follows an answer that does not end, a JSON document a line (a Kubernetes watch). Calls `on.open` when it has begun, returns when it
 * has ended. Errors: `unavailable`; `timeoutMs` is for the head of the answer alone, `maxBytes` for one line.
 */
export async function followApi(
  endpoint: ApiEndpoint,
  request: ApiRequest,
  on: { readonly open: () => void; readonly document: (document: unknown) => void },
  signal: AbortSignal,
): Promise<number> {
  const late = AbortSignal.timeout(request.timeoutMs);
  const head = new AbortController();
  const stop = () => head.abort();
  late.addEventListener("abort", stop);
  signal.addEventListener("abort", stop);
  // RACE: a signal that was given before is not told again.
  if (signal.aborted) {
    stop();
  }
  try {
    const response = await open(endpoint, request, head.signal);
    late.removeEventListener("abort", stop);
    on.open();
    let rest = "";
    response.setEncoding("utf8");
    for await (const chunk of response) {
      const lines = (rest + (chunk as string)).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > request.maxBytes) {
        response.destroy();
        throw new Error(`a line is longer than ${request.maxBytes} bytes`);
      }
      for (const line of lines.filter((text) => text !== "")) {
        on.document(parseJson(line));
      }
    }
    return response.statusCode ?? 0;
  } catch (error) {
    if (signal.aborted) {
      return 0;
    }
    throw failure(endpoint, request, late.aborted, error);
  } finally {
    late.removeEventListener("abort", stop);
    signal.removeEventListener("abort", stop);
  }
}

function open(endpoint: ApiEndpoint, request: ApiRequest, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const body = request.body === undefined ? null : JSON.stringify(request.body);
    const call = start(endpoint, {
      method: request.method ?? "GET",
      path: request.path,
      headers: {
        accept: "application/json",
        ...(body === null ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(body) }),
        ...request.headers,
      },
      // A connection of its own for each call: nothing is shared between callers, and none is left open.
      agent: false,
      signal,
    });
    if (endpoint.kind === "unix" && endpoint.ownerUid !== undefined) {
      requireOwner(call, endpoint.ownerUid);
    }
    call.once("response", resolve);
    call.once("error", reject);
    call.end(body ?? undefined);
  });
}

function start(endpoint: ApiEndpoint, options: RequestOptions): ClientRequest {
  if (endpoint.kind === "unix") {
    return httpRequest({ ...options, socketPath: endpoint.socket, headers: { host: "localhost", ...options.headers } });
  }
  const { host, port } = endpoint;
  if (endpoint.kind === "http") {
    return httpRequest({ ...options, host, port });
  }
  const { serverName, ca, client } = endpoint;
  return httpsRequest({
    ...options,
    host,
    port,
    ...(serverName === undefined ? {} : { servername: serverName }),
    ...(ca === null ? { rejectUnauthorized: false } : { ca }),
    ...client,
  });
}

/** A path in a user's folder may be a link to somebody else's socket; the kernel says who is there. */
function requireOwner(call: ClientRequest, uid: number): void {
  call.once("socket", (socket) =>
    socket.once("connect", () => {
      const owner = peerCredentials(socket).uid;
      if (owner !== uid) {
        call.destroy(new Error(`user ${owner} listens there, not user ${uid}`));
      }
    }),
  );
}

async function readBody(response: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length;
    if (bytes > maxBytes) {
      response.destroy();
      throw new Error(`the answer is longer than ${maxBytes} bytes`);
    }
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function failure(endpoint: ApiEndpoint, request: ApiRequest, late: boolean, error: unknown): EveryhopError {
  const what = late ? `no answer within ${request.timeoutMs} ms` : ((error as Error).message ?? String(error));
  const path = request.path.split("?", 1)[0];
  return new EveryhopError("unavailable", `\`${describeEndpoint(endpoint)}${path}\`: ${what}`, { cause: error });
}
