/** For tests: a Kubernetes API server over TLS, with a bearer token, that reviews tokens and knows pods and nodes. */
import { createServer } from "node:https";
import type { TestContext } from "node:test";
import { HOUR, LEAF_EXTENSIONS, rawCertificate, testCa, testKey } from "../../../../core/x509/fixture.ts";
import { certificatesToPem } from "../../../../core/x509/pem.ts";

export interface KubeState {
  /** Tokens by text: what the review says. */
  readonly tokens: Map<
    string,
    { audiences: readonly string[]; username: string; extra: Record<string, readonly string[]> }
  >;
  readonly objects: Map<string, unknown>;
  /** Whether answers name the audiences, as every API since 1.12 does. */
  knowsAudiences: boolean;
}

export interface FakeKube {
  readonly url: string;
  readonly ca: string;
  readonly bearer: string;
  readonly state: KubeState;
  readonly requests: string[];
}

export async function fakeKube(t: TestContext): Promise<FakeKube> {
  const now = Date.now();
  const dates = { notBeforeMs: now - HOUR, notAfterMs: now + HOUR };
  const ca = testCa("kubernetes", dates);
  const key = testKey();
  const names = { ...LEAF_EXTENSIONS, uris: [], dnsNames: ["localhost"], ...dates };
  const leaf = rawCertificate(ca, names, key);
  const state: KubeState = { tokens: new Map(), objects: new Map(), knowsAudiences: true };
  const requests: string[] = [];
  const bearer = "the-server's-own";
  const tls = { cert: certificatesToPem([leaf]), key: key.key.export({ format: "pem", type: "pkcs8" }) };
  const server = createServer(tls, (request, response) => {
    requests.push(`${request.method} ${request.url}`);
    let text = "";
    request.on("data", (chunk) => (text += chunk));
    request.on("end", () => {
      const { status, body } =
        request.headers.authorization === `Bearer ${bearer}`
          ? answer(state, request.method ?? "", request.url ?? "", text)
          : { status: 401, body: { kind: "Status", message: "Unauthorized" } };
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
  }).listen(0, "127.0.0.1");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  return { url: `https://localhost:${port}`, ca: certificatesToPem([ca.der]), bearer, state, requests };
}

function answer(state: KubeState, method: string, url: string, text: string): { status: number; body: unknown } {
  if (method === "POST" && url === "/apis/authentication.k8s.io/v1/tokenreviews") {
    const { spec } = JSON.parse(text) as { spec: { token: string; audiences?: readonly string[] } };
    return { status: 201, body: { kind: "TokenReview", status: review(state, spec) } };
  }
  const object = state.objects.get(url);
  return object === undefined
    ? { status: 404, body: { kind: "Status", message: "not found" } }
    : { status: 200, body: object };
}

function review(state: KubeState, spec: { token: string; audiences?: readonly string[] }) {
  const known = state.tokens.get(spec.token);
  const { audiences = [] } = spec;
  const fitting = audiences.filter((audience) => known?.audiences.includes(audience));
  if (known === undefined || (state.knowsAudiences && audiences.length > 0 && fitting.length === 0)) {
    return { authenticated: false, error: "invalid bearer token" };
  }
  const { username, extra } = known;
  return { authenticated: true, user: { username, extra }, ...(state.knowsAudiences ? { audiences: fitting } : {}) };
}
