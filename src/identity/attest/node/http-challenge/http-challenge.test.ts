import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { LookupFunction } from "node:net";
import { type TestContext, test } from "node:test";
import { parseSpiffeId } from "../../../../core/spiffe/id.ts";
import { asJson, prove, refusal } from "../fixture.ts";
import { addressFault } from "./fetch-nonce.ts";
import { httpChallengeProof } from "./prove.ts";
import { type HttpChallengeOptions, httpChallengeVerifier } from "./verify.ts";

/** Every name is this machine's. */
const home: LookupFunction = (_name, _options, done) => done(null, [{ address: "127.0.0.1", family: 4 }]);
const verifier = (options: Partial<HttpChallengeOptions> = {}) =>
  httpChallengeVerifier({ lookup: home, allowLoopback: true, timeoutMs: 2_000, ...options });
const node = () => httpChallengeProof({ hostname: "web.example.org" });

async function listening(t: TestContext, listener: RequestListener): Promise<number> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  await new Promise((resolve) => server.once("listening", resolve));
  return (server.address() as { port: number }).port;
}

test("a host that shows the nonce under its name is known by its name, once", async () => {
  assert.deepEqual(await prove(verifier(), node()), {
    path: "/spire/agent/http_challenge/web.example.org",
    selectors: ["http_challenge:hostname:web.example.org"],
    reattestable: false,
    once: true,
  });
  const attested = [parseSpiffeId("spiffe://example.com/spire/agent/http_challenge/web.example.org")];
  await assert.rejects(prove(verifier(), node(), { attested }), refusal("permission-denied", /already been used/));
});

test("without trust on first use it may come again, on ports that only root serves", () => {
  assert.throws(() => verifier({ tofu: false }), refusal("config-invalid", /tofu/));
  assert.throws(() => verifier({ tofu: false, requiredPort: 8080 }), refusal("config-invalid", /tofu/));
  assert.doesNotThrow(() => verifier({ tofu: false, requiredPort: 80 }));
  assert.doesNotThrow(() => verifier({ tofu: false, allowNonRootPorts: false }));
});

test("host names, agent names and ports are checked before anything is dialled", async () => {
  const table: [object, Partial<HttpChallengeOptions>, string, RegExp][] = [
    [{ hostname: "localhost" }, {}, "permission-denied", /localhost/],
    [{ hostname: "a.localhost" }, {}, "permission-denied", /localhost/],
    [{ hostname: "a/b" }, {}, "invalid-argument", /host name/],
    [{ hostname: "a:1" }, {}, "invalid-argument", /host name/],
    [{ hostname: "a\r\nx" }, {}, "invalid-argument", /host name/],
    [{ hostname: "" }, {}, "invalid-argument", /hostname/],
    [{ agentname: "../x" }, {}, "invalid-argument", /agent name/],
    [{ agentname: "a".repeat(33) }, {}, "invalid-argument", /agent name/],
    [{ port: 0 }, {}, "invalid-argument", /port is invalid/],
    [{ port: "80" }, {}, "invalid-argument", /port is invalid/],
    [{ port: 81 }, { requiredPort: 80 }, "invalid-argument", /not allowed to be used/],
    [{ port: 8080 }, { allowNonRootPorts: false }, "invalid-argument", />= 1024/],
    [{}, { allowedDnsPatterns: ["^db\\."] }, "permission-denied", /not allowed to connect/],
  ];
  for (const [change, options, code, message] of table) {
    const payload = asJson((given) => ({ ...given, ...change }));
    await assert.rejects(prove(verifier(options), node(), { payload }), refusal(code, message), JSON.stringify(change));
  }
});

test("SPIRE 1.14.2, SSRF by http_challenge: redirects are not followed, other answers say nothing, bodies are bounded", async (t) => {
  let asked = 0;
  const secret = await listening(t, (_request, response) => response.end(String(asked++)));
  const answers: [RequestListener, RegExp][] = [
    [(_, response) => response.writeHead(302, { location: `http://127.0.0.1:${secret}/` }).end(), /answered 302/],
    [(_, response) => response.writeHead(404).end(), /answered 404/],
    [(_, response) => response.end("another"), /nonce was not found/],
    [(_, response) => response.end("x".repeat(10_000_000)), /nonce was not found/],
  ];
  for (const [listener, message] of answers) {
    const port = await listening(t, listener);
    const payload = asJson((given) => ({ ...given, port }));
    await assert.rejects(prove(verifier(), node(), { payload }), refusal("permission-denied", message));
  }
  assert.equal(asked, 0);
});

test("a node that never answers is not waited for", async (t) => {
  const port = await listening(t, () => {});
  const payload = asJson((given) => ({ ...given, port }));
  await assert.rejects(
    prove(verifier({ timeoutMs: 50 }), node(), { payload }),
    refusal("permission-denied", /no answer/),
  );
});

test("SSRF: the address that is dialled is judged, whatever the name says", async () => {
  await assert.rejects(prove(verifier({ allowLoopback: false }), node()), refusal("permission-denied", /server's own/));
  const inner: LookupFunction = (_name, _options, done) => done(null, [{ address: "10.0.0.1", family: 4 }]);
  await assert.rejects(prove(verifier({ lookup: inner }), node()), refusal("permission-denied", /private network/));
  const payload = asJson((given) => ({ ...given, hostname: "169.254.169.254" }));
  await assert.rejects(prove(verifier(), node(), { payload }), refusal("permission-denied", /nobody's host/));
  let calls = 0;
  const rebinding: LookupFunction = (_name, _options, done) =>
    done(null, [{ address: calls++ === 0 ? "169.254.169.254" : "127.0.0.1", family: 4 }]);
  await assert.rejects(prove(verifier({ lookup: rebinding }), node()), refusal("permission-denied", /nobody's host/));
  assert.equal(calls, 1, "it is resolved once, and that is what is dialled");
});

test("which addresses are dialled", () => {
  const patterns = { allowedDnsPatterns: ["x"] };
  for (const address of ["8.8.8.8", "2a00::1"]) {
    assert.equal(addressFault(address, {}), null, address);
  }
  for (const address of ["10.1.1.1", "172.31.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"]) {
    assert.notEqual(addressFault(address, {}), null, address);
    assert.equal(addressFault(address, patterns), null, `${address}: names are limited by the operator`);
    assert.equal(addressFault(address, { allowPrivateAddresses: true }), null, address);
  }
  for (const address of ["127.0.0.1", "::1", "::ffff:127.0.0.1"]) {
    assert.notEqual(addressFault(address, { ...patterns, allowPrivateAddresses: true }), null, address);
  }
  for (const address of [
    "0.0.0.0",
    "169.254.169.254",
    "fe80::1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "64:ff9b::7f00:1",
  ]) {
    assert.notEqual(addressFault(address, { ...patterns, allowLoopback: true }), null, address);
  }
});
