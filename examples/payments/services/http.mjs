// The few lines that the HTTP services share.
import { createServer } from "node:http";
import { recordSocket } from "./record.mjs";

const MAX_BODY = 1 << 20;

/** Serves `routes` ("METHOD /path" → handler(request, body) → [status, value]) on $HOST:$PORT. */
export function serve(routes) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const handler = routes[`${request.method} ${pathname}`];
    try {
      const body = await readJson(request);
      const [status, value, headers] = handler ? await handler(request, body) : [404, { error: "not found" }];
      send(response, status, value, headers);
    } catch (error) {
      console.error(`${request.method} ${pathname}: ${error.message}`);
      send(response, error.status ?? 500, { error: error.message });
    }
  });
  server.on("connection", recordSocket);
  server.keepAliveTimeout = 65_000;
  server.listen(Number(process.env.PORT), process.env.HOST);
  process.on("SIGTERM", () => process.exit(0));
}

function send(response, status, value, headers = {}) {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    ...headers,
  });
  response.end(body);
}

async function readJson(request) {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) {
    text += chunk;
    if (text.length > MAX_BODY) {
      throw Object.assign(new Error("the body is too large"), { status: 413 });
    }
  }
  try {
    return text === "" ? {} : JSON.parse(text);
  } catch {
    throw Object.assign(new Error("the body is not JSON"), { status: 400 });
  }
}

/** Calls another service through our own sidecar: `service` as in everyhop.yaml. */
export async function call(service, method, path, body) {
  const base = process.env[`EVERYHOP_${service.toUpperCase().replaceAll("-", "_")}_URL`];
  const response = await fetch(base + path, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  const text = await response.text();
  const denial = response.headers.get("x-everyhop-denial");
  return {
    status: response.status,
    value: parse(text),
    headers: denial === null ? {} : { "x-everyhop-denial": denial },
  };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { message: text };
  }
}
