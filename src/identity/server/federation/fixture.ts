/** Bundle endpoints of strangers, for tests: real TLS on free ports, with the certificate and the answers a test wants. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { parseTrustDomain, type SpiffeId } from "../../../core/spiffe/id.ts";
import { HOUR, type TestCa, testCa, testKey, testLeaf } from "../../../core/x509/fixture.ts";
import { pem, pemChain } from "../../../io/tls.ts";

export const other = parseTrustDomain("other.org");
export const endpointId = "spiffe://other.org/spire/server" as SpiffeId;

/** OpenSSL judges web certificates by the machine's clock. */
const current = () => ({ notBeforeMs: Date.now() - HOUR, notAfterMs: Date.now() + HOUR });

export const currentCa = (name: string, trustDomain = "other.org"): TestCa =>
  testCa(name, { ...current(), spiffeId: `spiffe://${trustDomain}` });

export interface Endpoint {
  readonly port: number;
  /** Requests as they came. */
  readonly asked: string[];
  /** Handshakes finished. */
  connections: number;
}

export interface EndpointOptions {
  readonly ca: TestCa;
  readonly id?: string;
  readonly dnsNames?: readonly string[];
  readonly answer: (request: IncomingMessage, response: ServerResponse) => void;
}

export async function endpoint(t: TestContext, options: EndpointOptions): Promise<Endpoint> {
  const { ca, id = endpointId, dnsNames = ["localhost"], answer } = options;
  const key = testKey();
  const leaf = testLeaf(ca, id, { ...current(), dnsNames }, key);
  const server = createServer({
    cert: pemChain([leaf]),
    key: pem("PRIVATE KEY", key.key.export({ format: "der", type: "pkcs8" })),
  });
  const asked: string[] = [];
  const self = { port: 0, asked, connections: 0 };
  server.on("secureConnection", () => {
    self.connections++;
  });
  server.on("request", (request, response) => {
    asked.push(`${request.method} ${request.url}`);
    answer(request, response);
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  self.port = (server.address() as AddressInfo).port;
  t.after(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  return self;
}

export const json =
  (body: string | Uint8Array, status = 200) =>
  (_request: IncomingMessage, response: ServerResponse): void => {
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  };

export const redirect =
  (to: string, status = 302) =>
  (_request: IncomingMessage, response: ServerResponse): void => {
    response.writeHead(status, { location: to }).end();
  };
