/** Tokens, CUSTOM and dry runs through a sidecar: real policies, real TLS, authorizers in this process. */
import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { exportJwk } from "../core/jose/jwk.ts";
import { signJws } from "../core/jose/jws.ts";
import { parseResources, resourceToJson } from "../core/policy/parse.ts";
import {
  Authorization,
  type CheckRequestSchema,
  type CheckResponseSchema,
} from "../gen/envoy/service/auth/v3/external_auth_pb.js";
import { serviceDefinition } from "../io/rpc/adapter.ts";
import { compileSnapshot } from "./enforce.ts";
import { id, TestMesh, testClock, testSvid } from "./fixture.ts";
import { ask, httpApp, mtls, untilClosed, untilMatch } from "./fixture-client.ts";

const keyOf = (kid: string) => ({ kid, ...generateKeyPairSync("ec", { namedCurve: "P-256" }) });
const first = keyOf("first");
const second = keyOf("second");
const jwksOf = (...keys: readonly { readonly kid: string; readonly publicKey: KeyObject }[]): string =>
  JSON.stringify({ keys: keys.map(({ kid, publicKey }) => exportJwk(publicKey, { kid })) });

function token(claims: object, { kid, privateKey }: { kid: string; privateKey: KeyObject } = first): string {
  const exp = Math.floor(testClock.now() / 1_000) + 600;
  return signJws({ alg: "ES256", kid }, JSON.stringify({ iss: "i", sub: "alice", exp, ...claims }), privateKey);
}

const resource = (kind: string, name: string, spec: unknown, annotations?: object) =>
  JSON.stringify({
    apiVersion: "security.istio.io/v1",
    kind,
    metadata: { name, namespace: "prod", ...(annotations === undefined ? {} : { annotations }) },
    spec,
  });

/** What the application saw, as it saw it. */
interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

class Shop {
  seen: Seen[] = [];
  readonly mesh: TestMesh;

  constructor() {
    const app = httpApp((request, response) => {
      let body = "";
      request.setEncoding("latin1");
      request.on("data", (chunk: string) => {
        body += chunk;
      });
      request.on("end", () => {
        this.seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
        response.end("served");
      });
    });
    this.mesh = new TestMesh([
      { name: "shop", serve: app },
      { name: "db", protocol: "tcp", serve: (socket) => void socket.end("rows") },
      { name: "caller", serve: () => {} },
      {
        name: "authz",
        serve: httpApp((request, response) => {
          response.setHeader("x-seen", String(request.headers["x-forwarded-client-cert"]));
          response.end();
        }),
      },
    ]);
  }

  /** Puts policies in force at one service. */
  enforce(
    name: string,
    documents: readonly string[],
    meshConfig: object = {},
    keySets: object = {},
    bundles: object = {},
  ): void {
    const { resources, issues } = parseResources([{ file: "p.yaml", text: documents.join("\n---\n") }]);
    assert.deepEqual(
      issues.filter(({ severity }) => severity === "error"),
      [],
    );
    const snapshot = {
      ...this.mesh.snapshot(name),
      policies: resources.map(resourceToJson),
      meshConfig: JSON.stringify(meshConfig),
      keySets: new Map(Object.entries(keySets) as [string, string][]),
      bundles: new Map(Object.entries(bundles) as [string, Uint8Array][]),
    };
    this.mesh.enforcers.set(name, compileSnapshot(snapshot));
    this.mesh.opaBundles.set(name, snapshot.bundles);
    this.mesh.push();
    this.seen = [];
  }

  ask(options: Parameters<typeof ask>[1] = {}) {
    return ask(this.mesh.member("caller").outboundPort("shop"), options);
  }
}

describe("tokens at the sidecar", () => {
  const shop = new Shop();
  before(() => shop.mesh.start());
  after(() => shop.mesh.close());

  const authentication = (rule: object) =>
    resource("RequestAuthentication", "jwt", { jwtRules: [{ issuer: "i", jwks: jwksOf(first), ...rule }] });
  const requireToken = resource("AuthorizationPolicy", "who", {
    rules: [{ from: [{ source: { requestPrincipals: ["i/alice"] } }] }],
  });
  const bearer = (text: string) => ({ headers: { authorization: `Bearer ${text}` } });

  it("a good one lets in and is taken out; none is for the policies; a bad one is 401, a wrong audience 403", async () => {
    shop.enforce("shop", [authentication({ audiences: ["shop"] }), requireToken]);
    assert.equal((await shop.ask(bearer(token({ aud: "shop" })))).status, 200);
    assert.equal(shop.seen[0]?.headers.authorization, undefined);
    const none = await shop.ask();
    assert.deepEqual([none.status, none.body], [403, "RBAC: access denied"]);
    const forged = await shop.ask(bearer(token({ aud: "shop" }, { kid: "first", privateKey: second.privateKey })));
    assert.deepEqual([forged.status, forged.body], [401, "Jwt verification fails"]);
    assert.match(String(forged.headers["www-authenticate"]), /^Bearer realm="https?:\/\/.*", error="invalid_token"$/);
    assert.match(String(forged.headers["x-everyhop-denial"]), /^[0-9a-f]{24}$/);
    assert.deepEqual(
      [(await shop.ask(bearer(token({ aud: "bank" })))).status, (await shop.ask(bearer("garbage"))).status],
      [403, 401],
    );
    assert.equal((await shop.ask(bearer(token({ aud: "shop", exp: 1 })))).body, "Jwt is expired");
    const { denials } = shop.mesh.member("shop").sidecar;
    const wouldBe = denials.take(100).flatMap(({ changes }) => changes.map(({ would }) => would));
    assert.deepEqual(wouldBe, [
      "be allowed if a rule let `example.com/ns/prod/sa/caller` reach `GET /`",
      "be accepted if `audiences` included `bank`",
    ]);
    assert.equal(shop.seen.length, 1);
  });

  it("a token in the query is taken out of the forwarded path, and the rest of it stays", async () => {
    shop.enforce("shop", [authentication({}), requireToken]);
    assert.equal((await shop.ask({ path: `/x?a=1&access_token=${token({})}&b=2` })).status, 200);
    assert.equal(shop.seen[0]?.url, "/x?a=1&b=2");
  });

  it("claims go to headers; a forged copy never arrives, with a token, without one, and on a preflight", async () => {
    const rule = {
      outputClaimToHeaders: [{ header: "X-Group", claim: "group" }],
      outputPayloadToHeader: "x-payload",
      forwardOriginalToken: true,
    };
    shop.enforce("shop", [authentication(rule)]);
    const forged = { "x-group": "admin", "X-Payload": "e30" };
    const given = bearer(token({ group: "dev" }));
    assert.equal((await shop.ask({ headers: { ...given.headers, ...forged } })).status, 200);
    assert.equal(shop.seen[0]?.headers["x-group"], "dev");
    assert.equal(
      JSON.parse(Buffer.from(String(shop.seen[0]?.headers["x-payload"]), "base64url").toString()).sub,
      "alice",
    );
    assert.match(String(shop.seen[0]?.headers.authorization), /^Bearer /);
    const preflight = { origin: "https://x", "access-control-request-method": "GET" };
    for (const [method, headers] of [
      ["GET", forged],
      ["GET", { ...bearer(token({})).headers, ...forged }],
      ["OPTIONS", { ...forged, ...preflight }],
    ] as const) {
      assert.equal((await shop.ask({ method, headers })).status, 200);
      assert.equal(shop.seen.at(-1)?.headers["x-group"], undefined, `${method} ${JSON.stringify(headers)}`);
    }
  });

  it("a line feed in a claim is no second header", async () => {
    shop.enforce("shop", [authentication({ outputClaimToHeaders: [{ header: "x-name", claim: "name" }] })]);
    assert.equal((await shop.ask(bearer(token({ name: "a\r\nx-admin: yes" })))).status, 200);
    assert.deepEqual([shop.seen[0]?.headers["x-name"], shop.seen[0]?.headers["x-admin"]], [undefined, undefined]);
  });

  it("keys of a URL: without them 401; a request with a new key waits for them, and they are asked for once", async () => {
    const uri = "https://keys.example/jwks";
    const rules = [
      resource("RequestAuthentication", "jwt", { jwtRules: [{ issuer: "i", jwksUri: uri }] }),
      requireToken,
    ];
    const { sidecar } = shop.mesh.member("shop");
    const asked: string[] = [];
    sidecar.keys.ask = (wanted) => {
      asked.push(wanted);
      shop.enforce("shop", rules, {}, { [uri]: jwksOf(first, second) });
    };
    shop.enforce("shop", rules, {}, { [uri]: jwksOf(first) });
    assert.equal((await shop.ask(bearer(token({})))).status, 200);
    const rotated = [shop.ask(bearer(token({}, second))), shop.ask(bearer(token({}, second)))];
    assert.deepEqual(
      (await Promise.all(rotated)).map(({ status }) => status),
      [200, 200],
    );
    assert.deepEqual(asked, [uri]);
    shop.enforce("shop", rules, {}, { [uri]: "{" });
    sidecar.keys.ask = () => {};
    assert.equal((await shop.ask(bearer(token({})))).status, 401);
    assert.equal((await shop.ask()).status, 403);
  });

  it("a body that comes while keys are waited for is forwarded whole", async () => {
    const uri = "https://other.example/jwks";
    const rules = [
      resource("RequestAuthentication", "jwt", { jwtRules: [{ issuer: "i", jwksUri: uri }] }),
      requireToken,
    ];
    const { sidecar, inboundPort } = shop.mesh.member("shop");
    shop.enforce("shop", rules);
    const caller = await mtls(inboundPort, testSvid(shop.mesh.ca, id("caller")));
    sidecar.keys.ask = () => {
      caller.write("wor");
      shop.enforce("shop", rules, {}, { [uri]: jwksOf(first) });
      caller.write("ld");
    };
    const fields = `host: shop\r\nauthorization: Bearer ${token({})}\r\ncontent-length: 10\r\n`;
    caller.write(`POST /late HTTP/1.1\r\n${fields}\r\nhello`);
    assert.match(await untilMatch(caller, /served/), /^HTTP\/1\.1 200/);
    assert.deepEqual(
      shop.seen.map(({ url, body }) => [url, body]),
      [["/late", "helloworld"]],
    );
    caller.destroy();
  });
});

type CheckRequest = MessageShape<typeof CheckRequestSchema>;
type CheckAnswer = MessageInitShape<typeof CheckResponseSchema>;

/** An authorizer as OPA's Envoy plugin is one. */
class GrpcAuthorizer {
  readonly #server = new Server();
  checks: CheckRequest[] = [];
  answer: CheckAnswer | null = null;
  port = 0;

  async start(): Promise<void> {
    this.#server.addService(serviceDefinition(Authorization), {
      check: (
        call: { request: CheckRequest },
        done: (error: { code: number } | null, answer: CheckAnswer | null) => void,
      ) => {
        this.checks.push(call.request);
        done(this.answer === null ? { code: 14 } : null, this.answer);
      },
    });
    this.port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
  }

  close(): void {
    this.#server.forceShutdown();
  }
}

const custom = (rule: object = {}) =>
  resource("AuthorizationPolicy", "ask", { action: "CUSTOM", provider: { name: "authz" }, rules: [rule] });

describe("CUSTOM over gRPC", () => {
  const shop = new Shop();
  const authorizer = new GrpcAuthorizer();
  before(async () => {
    await shop.mesh.start();
    await authorizer.start();
  });
  after(async () => {
    await shop.mesh.close();
    authorizer.close();
  });
  const meshConfig = (more: object = {}) => ({
    extensionProviders: [
      { name: "authz", envoyExtAuthzGrpc: { service: "127.0.0.1", port: authorizer.port, timeout: "5s", ...more } },
    ],
  });

  it("is asked only where the rule matches, with what Envoy says", async () => {
    authorizer.answer = { status: { code: 0 } };
    shop.enforce("shop", [custom({ to: [{ operation: { paths: ["/admin*"] } }] })], meshConfig());
    assert.equal((await shop.ask({ path: "/free" })).status, 200);
    assert.equal(authorizer.checks.length, 0);
    const headers = { "x-user": "bob", host: "shop.example", "x-twice": ["a", "b"] };
    assert.equal((await shop.ask({ path: "/admin?x=1", method: "PUT", headers })).status, 200);
    const attributes = authorizer.checks[0]?.attributes;
    const asked = attributes?.request?.http;
    assert.deepEqual(
      [asked?.method, asked?.path, asked?.host, asked?.scheme, asked?.protocol, asked?.headers["x-user"]],
      ["PUT", "/admin?x=1", "shop.example", "https", "HTTP/1.1", "bob"],
    );
    assert.deepEqual(
      [asked?.headers["x-twice"], asked?.headers[":authority"], asked?.headers[":path"], asked?.headers[":method"]],
      ["a,b", "shop.example", "/admin?x=1", "PUT"],
    );
    assert.deepEqual(
      [attributes?.source?.principal, attributes?.destination?.principal],
      ["spiffe://example.com/ns/prod/sa/caller", "spiffe://example.com/ns/prod/sa/shop"],
    );
    assert.match(asked?.id ?? "", /^[0-9a-f-]{36}$/);
  });

  it("its denial reaches the client: status, headers and body; it comes before DENY", async () => {
    authorizer.answer = {
      status: { code: 7 },
      httpResponse: {
        case: "deniedResponse",
        value: {
          status: { code: 418 },
          body: "no téa",
          headers: [{ header: { key: "x-why", value: "kettle" } }, { header: { key: "content-length", value: "999" } }],
        },
      },
    };
    const deny = resource("AuthorizationPolicy", "deny", { action: "DENY", rules: [{}] });
    shop.enforce("shop", [custom(), deny], meshConfig());
    const reply = await shop.ask();
    assert.deepEqual(
      [reply.status, reply.headers["x-why"], Buffer.from(reply.body, "latin1").toString()],
      [418, "kettle", "no téa"],
    );
    authorizer.answer = { status: { code: 0 } };
    assert.equal((await shop.ask()).status, 403);
    assert.equal(shop.seen.length, 0);
  });

  it("what it puts into the request is seen by ALLOW and by the service; into the answer, by the client", async () => {
    authorizer.answer = {
      status: { code: 0 },
      httpResponse: {
        case: "okResponse",
        value: {
          headers: [
            { header: { key: "x-role", value: "admin" } },
            { header: { key: "x-list", value: "b" }, append: true },
            { header: { key: "x-bad", value: "a\r\nx-evil: 1" } },
          ],
          headersToRemove: ["x-secret", "host"],
          responseHeadersToAdd: [{ header: { key: "x-checked", value: "yes" } }],
        },
      },
    };
    const allow = resource("AuthorizationPolicy", "allow", {
      rules: [{ when: [{ key: "request.headers[x-role]", values: ["admin"] }] }],
    });
    shop.enforce("shop", [custom(), allow], meshConfig());
    const reply = await shop.ask({ headers: { "x-role": "guest", "x-list": "a", "x-secret": "s", host: "h" } });
    assert.deepEqual([reply.status, reply.headers["x-checked"]], [200, "yes"]);
    const { headers } = shop.seen[0] as Seen;
    assert.deepEqual(
      [headers["x-role"], headers["x-list"], headers["x-secret"], headers["x-evil"], headers["x-bad"], headers.host],
      ["admin", "a, b", undefined, undefined, undefined, "h"],
    );
  });

  it("sees the body it asks for, chunked or not, and what it saw is forwarded whole", async () => {
    authorizer.answer = { status: { code: 0 } };
    const includeRequestBodyInCheck = { maxRequestBytes: 8, allowPartialMessage: true, packAsBytes: true };
    shop.enforce("shop", [custom()], meshConfig({ includeRequestBodyInCheck }));
    authorizer.checks = [];
    for (const headers of [{ "content-length": "11" }, { "transfer-encoding": "chunked" }]) {
      assert.equal((await shop.ask({ method: "POST", headers, body: "hello world" })).status, 200);
    }
    for (const { attributes } of authorizer.checks) {
      assert.equal(Buffer.from(attributes?.request?.http?.rawBody ?? []).toString(), "hello wo");
      assert.equal(attributes?.request?.http?.headers["x-envoy-auth-partial-body"], "true");
    }
    assert.deepEqual(
      shop.seen.map(({ body }) => body),
      ["hello world", "hello world"],
    );
    shop.enforce("shop", [custom()], meshConfig({ includeRequestBodyInCheck: { maxRequestBytes: 8 } }));
    assert.equal((await shop.ask({ method: "POST", body: "hello world" })).status, 413);
    assert.equal((await shop.ask({ method: "POST", body: "short" })).status, 200);
    assert.deepEqual(
      shop.seen.map(({ body }) => body),
      ["short"],
    );
  });

  it("a client that waits to be told to send its body is told so", async () => {
    authorizer.answer = { status: { code: 0 } };
    shop.enforce("shop", [custom()], meshConfig({ includeRequestBodyInCheck: { maxRequestBytes: 8 } }));
    const caller = await mtls(shop.mesh.member("shop").inboundPort, testSvid(shop.mesh.ca, id("caller")));
    caller.write("POST / HTTP/1.1\r\nhost: shop\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert.match(await untilMatch(caller, /\r\n\r\n/), /^HTTP\/1\.1 100 Continue\r\n\r\n$/);
    caller.write("hello");
    assert.match(await untilMatch(caller, /served/), /HTTP\/1\.1 200/);
    assert.equal(authorizer.checks.at(-1)?.attributes?.request?.http?.body, "hello");
    assert.equal(shop.seen[0]?.body, "hello");
    caller.destroy();
  });

  it("where it gives no answer the request is denied, unless the provider fails open", async () => {
    authorizer.answer = null;
    shop.enforce("shop", [custom()], meshConfig({ statusOnError: "503" }));
    assert.equal((await shop.ask()).status, 503);
    shop.enforce("shop", [custom()], meshConfig({ failOpen: true }));
    assert.equal((await shop.ask()).status, 200);
    shop.enforce("shop", [custom()], {});
    assert.equal((await shop.ask()).status, 403);
  });

  it("decides on TCP connections too", async () => {
    const db = shop.mesh.member("db").inboundPort;
    const caller = testSvid(shop.mesh.ca, id("caller"));
    shop.enforce("db", [custom()], meshConfig());
    authorizer.answer = { status: { code: 0 } };
    assert.match(await untilMatch(await mtls(db, caller), /rows/), /rows/);
    assert.equal(authorizer.checks.at(-1)?.attributes?.request?.http, undefined);
    authorizer.answer = { status: { code: 7 } };
    assert.equal(await untilClosed(await mtls(db, caller)), "");
  });
});

describe("CUSTOM over HTTP", () => {
  const shop = new Shop();
  const asked: Seen[] = [];
  let answer: (request: http.IncomingMessage, response: http.ServerResponse) => void = (_, response) => response.end();
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on("end", () => {
      asked.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
      answer(request, response);
    });
  });
  before(async () => {
    await shop.mesh.start();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  after(async () => {
    await shop.mesh.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const meshConfig = (more: object = {}) => ({
    extensionProviders: [
      {
        name: "authz",
        envoyExtAuthzHttp: {
          service: "127.0.0.1",
          port: (server.address() as AddressInfo).port,
          timeout: "5s",
          ...more,
        },
      },
    ],
  });

  it("gets the request's head under its prefix, with the headers named, and gives those named to the service", async () => {
    answer = (_, response) => response.writeHead(200, { "x-user-id": "7", "x-other": "1", "x-down": "d" }).end();
    const names = {
      pathPrefix: "/check",
      includeRequestHeadersInCheck: ["x-ext-*", "cookie"],
      includeAdditionalHeadersInCheck: { "x-asked-by": "mesh" },
      headersToUpstreamOnAllow: ["x-user-id"],
      headersToDownstreamOnAllow: ["x-down"],
      includeRequestBodyInCheck: { maxRequestBytes: 100 },
    };
    shop.enforce("shop", [custom()], meshConfig(names));
    const headers = {
      "x-ext-a": "1",
      "x-hidden": "h",
      authorization: "Basic x",
      "x-user-id": "0",
      host: "shop.example",
    };
    const reply = await shop.ask({ method: "POST", path: "/a?b", headers, body: "data" });
    assert.deepEqual([reply.status, reply.headers["x-down"], reply.headers["x-other"]], [200, "d", undefined]);
    const [check] = asked;
    assert.deepEqual([check?.method, check?.url, check?.body], ["POST", "/check/a?b", "data"]);
    const got = check?.headers ?? {};
    assert.deepEqual(
      [got["x-ext-a"], got["x-hidden"], got.authorization, got["x-asked-by"], got.host],
      ["1", undefined, "Basic x", "mesh", "shop.example"],
    );
    assert.deepEqual([shop.seen[0]?.headers["x-user-id"], shop.seen[0]?.headers["x-other"]], ["7", undefined]);
  });

  it("anything but 200 denies, with the authorizer's answer; 5xx is no answer", async () => {
    answer = (_, response) => response.writeHead(302, { location: "https://login", "x-a": "1", "x-b": "2" }).end("go");
    shop.enforce("shop", [custom()], meshConfig({ headersToDownstreamOnDeny: ["x-a"] }));
    const reply = await shop.ask();
    assert.deepEqual(
      [reply.status, reply.headers.location, reply.headers["x-a"], reply.headers["x-b"], reply.body],
      [302, "https://login", "1", undefined, "go"],
    );
    answer = (_, response) => response.writeHead(500).end();
    assert.equal((await shop.ask()).status, 403);
    assert.equal(shop.seen.length, 0);
  });

  it("one that is a service of the mesh is asked through the own sidecar, by mutual TLS", async () => {
    const provider = {
      service: "authz.prod.svc.cluster.local",
      port: 9000,
      timeout: "5s",
      headersToUpstreamOnAllow: ["x-seen"],
    };
    shop.enforce("shop", [custom()], { extensionProviders: [{ name: "authz", envoyExtAuthzHttp: provider }] });
    assert.equal((await shop.ask()).status, 200);
    assert.match(String(shop.seen[0]?.headers["x-seen"]), /URI=spiffe:\/\/example\.com\/ns\/prod\/sa\/shop$/);
  });

  it("one that does not answer in time denies; a client that goes away is forgotten", async () => {
    answer = () => {};
    shop.enforce("shop", [custom()], meshConfig({ timeout: "50ms" }));
    assert.equal((await shop.ask()).status, 403);
    shop.enforce("shop", [custom()], meshConfig({ timeout: "60s" }));
    const before = asked.length;
    const caller = await mtls(shop.mesh.member("shop").inboundPort, testSvid(shop.mesh.ca, id("caller")));
    const arrived = new Promise<void>((resolve) => {
      answer = () => resolve();
    });
    caller.write("GET / HTTP/1.1\r\nhost: shop\r\n\r\n");
    await arrived;
    caller.destroy();
    assert.equal(asked.length, before + 1);
    answer = (_, response) => void response.end();
    assert.equal((await shop.ask()).status, 200);
    assert.equal(shop.seen.length, 1);
  });
});

describe("CUSTOM by an OPA bundle in the sidecar", () => {
  const shop = new Shop();
  const bundle = readFileSync(join(import.meta.dirname, "../../test/opa/policy.tar.gz"));
  before(() => shop.mesh.start());
  after(() => shop.mesh.close());
  const meshConfig = (more: object = {}) => ({
    extensionProviders: [
      { name: "authz", everyhopOpaWasm: { bundle: "policy.tar.gz", entrypoint: "envoy/authz/allow", ...more } },
    ],
  });

  it("is given what OPA's Envoy plugin is given, and answers as it does", async () => {
    shop.enforce("shop", [custom()], meshConfig({ decisionLog: true }), {}, { "policy.tar.gz": bundle });
    const refused = await shop.ask({ path: "/admin" });
    assert.deepEqual([refused.status, refused.body], [403, "not an admin"]);
    const admin = await shop.ask({ path: "/admin", headers: { "x-user": "alice", "x-role": "forged" } });
    assert.deepEqual([admin.status, admin.headers["x-checked-by"]], [200, "opa"]);
    assert.equal(shop.seen[0]?.headers["x-role"], "admin");
    assert.equal((await shop.ask({ path: "/free/a%20b?x=1" })).status, 200);
    assert.equal((await shop.ask({ path: "/free", method: "POST" })).status, 403);
  });

  it("without its bundle, with a broken one, or with an entrypoint it does not have, denies", async () => {
    for (const [more, bundles] of [
      [{}, {}],
      [{}, { "policy.tar.gz": bundle.subarray(0, 1_000) }],
      [{}, { "policy.tar.gz": Buffer.from("no archive") }],
      [{ entrypoint: "envoy/authz/none" }, { "policy.tar.gz": bundle }],
    ] as const) {
      shop.enforce("shop", [custom()], meshConfig(more), {}, bundles);
      assert.equal((await shop.ask({ path: "/free" })).status, 403, JSON.stringify(more));
    }
    shop.enforce("shop", [custom()], meshConfig(), {}, { "policy.tar.gz": bundle });
    assert.equal((await shop.ask({ path: "/free" })).status, 200);
  });
});

describe("dry runs at the sidecar", () => {
  const shop = new Shop();
  before(() => shop.mesh.start());
  after(() => shop.mesh.close());

  it("are one verdict: counted with what was decided, and told", async () => {
    const dry = { "istio.io/dry-run": "true" };
    const allow = resource("AuthorizationPolicy", "next", { rules: [{ to: [{ operation: { paths: ["/a"] } }] }] }, dry);
    const deny = resource(
      "AuthorizationPolicy",
      "stop",
      { action: "DENY", rules: [{ to: [{ operation: { methods: ["PUT"] } }] }] },
      dry,
    );
    shop.enforce("shop", [allow, deny]);
    for (const [method, path] of [
      ["GET", "/a"],
      ["PUT", "/a"],
      ["GET", "/b"],
    ]) {
      assert.equal((await shop.ask({ method, path })).status, 200);
    }
    const { sidecar } = shop.mesh.member("shop");
    assert.deepEqual(
      sidecar.dryRuns.counts.map(({ enforced, would, policy, count }) => [enforced, would, policy, count]),
      [
        ["allow", "allow", "prod/next", 1],
        ["allow", "deny", "prod/stop", 1],
        ["allow", "deny", null, 1],
      ],
    );
    assert.match(
      sidecar.telemetry.registry.text(),
      /istio_dry_run_decisions_total\{source_workload="caller".*enforced="allow",would="deny",policy="prod\/stop"\} 1/,
    );
  });
});
