/** For tests: a server with TLS that answers as Kubernetes does (its API, or a kubelet), with tokens, reviews and watches. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LEAF_EXTENSIONS, rawCertificate, testCa, testKey } from "../core/x509/fixture.ts";
import type { KubeConfig } from "./kube.ts";
import { pem } from "./tls.ts";

export interface FakeKube {
  readonly port: number;
  /** How a client finds it: by the name `localhost`. */
  readonly config: KubeConfig;
  readonly caFile: string;
  readonly tokenFile: string;
  /** Path (without query) → document, or what makes the answer of a request. Undefined: 404. */
  readonly routes: Map<string, unknown | ((request: FakeRequest) => unknown)>;
  /** Each request, as `GET /path?query`. */
  readonly asked: string[];
  /** Sends an event to everybody who watches `path` (without query). */
  tell(path: string, type: string, object: unknown): void;
  /** Open watches of `path`. */
  watchers(path: string): number;
  close(): Promise<void>;
}

export interface FakeRequest {
  readonly query: URLSearchParams;
  readonly accept: string;
  readonly body: unknown;
}

export const TOKEN = "service-account-token";

export async function fakeKube(): Promise<FakeKube> {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-kube-"));
  const now = Date.now();
  const own = testKey();
  const times = { notBeforeMs: now - 3_600_000, notAfterMs: now + 24 * 3_600_000 };
  const ca = testCa("kubernetes", times);
  const cert = rawCertificate(ca, { ...LEAF_EXTENSIONS, ...times, dnsNames: ["localhost", "node-1"] }, own);
  const caFile = join(dir, "ca.crt");
  const tokenFile = join(dir, "token");
  writeFileSync(caFile, pem("CERTIFICATE", ca.der));
  writeFileSync(tokenFile, `${TOKEN}\n`);
  const key = own.key.export({ format: "pem", type: "pkcs8" }) as string;
  const routes: FakeKube["routes"] = new Map();
  const asked: string[] = [];
  const watches = new Map<string, Set<ServerResponse>>();
  const server = createServer({ cert: pem("CERTIFICATE", cert), key }, (request, response) => {
    void answer(request, response, { routes, asked, watches });
  });
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    caFile,
    tokenFile,
    routes,
    asked,
    config: { host: "localhost", port, caFile, tokenFile },
    tell(path, type, object) {
      for (const response of watches.get(path) ?? []) {
        response.write(`${JSON.stringify({ type, object })}\n`);
      }
    },
    watchers: (path) => watches.get(path)?.size ?? 0,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

interface State extends Pick<FakeKube, "routes" | "asked"> {
  readonly watches: Map<string, Set<ServerResponse>>;
}

async function answer(request: IncomingMessage, response: ServerResponse, state: State): Promise<void> {
  const url = new URL(request.url ?? "/", "https://localhost");
  state.asked.push(`${request.method} ${request.url}`);
  const send = (status: number, body: unknown) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (request.headers.authorization !== `Bearer ${TOKEN}`) {
    send(401, { kind: "Status", message: "Unauthorized" });
    return;
  }
  const chunks: Buffer[] = [];
  for await (const chunk of request) {
    chunks.push(chunk as Buffer);
  }
  if (url.searchParams.get("watch") === "true") {
    const open = state.watches.get(url.pathname) ?? new Set();
    state.watches.set(url.pathname, open.add(response));
    response.once("close", () => open.delete(response));
    response.writeHead(200, { "content-type": "application/json" });
    response.flushHeaders();
    return;
  }
  const route = state.routes.get(url.pathname);
  const text = Buffer.concat(chunks).toString();
  const body = text === "" ? undefined : JSON.parse(text);
  const found =
    typeof route === "function"
      ? route({ query: url.searchParams, accept: request.headers.accept ?? "", body })
      : route;
  send(
    found === undefined ? 404 : request.method === "POST" ? 201 : 200,
    found ?? { kind: "Status", message: "not found" },
  );
}
