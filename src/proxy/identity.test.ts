import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import {
  CA_EXTENSIONS,
  HOUR,
  LEAF_EXTENSIONS,
  NOW,
  type RawOptions,
  rawCertificate,
  testCa,
  testKey,
  testLeaf,
} from "../core/x509/fixture.ts";
import { id, TestMesh, testSvid } from "./fixture.ts";
import { ask, type ClientIdentity, echoApp, mtls, plain, untilClosed, untilMatch } from "./fixture-client.ts";

const REQUEST = "GET /secret HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

describe("who may speak to a service", () => {
  const mesh = new TestMesh([
    { name: "shop", serve: echoApp },
    { name: "printer", serve: () => {} },
  ]);
  before(() => mesh.start());
  after(() => mesh.close());

  const raw = (options: RawOptions, issuer = mesh.ca): ClientIdentity => {
    const key = testKey();
    return { chain: [rawCertificate(issuer, { ...LEAF_EXTENSIONS, ...options }, key)], keyDer: der(key) };
  };
  const der = (key: ReturnType<typeof testKey>) => key.key.export({ format: "der", type: "pkcs8" });
  const ssl = (name: string) => counter(mesh, "shop", name);

  const refused: readonly [name: string, identity: () => ClientIdentity | null, counted: string][] = [
    ["no certificate", () => null, "envoy_ssl_fail_verify_no_cert_total"],
    ["another CA", () => testSvid(testCa("other"), id("printer")), "envoy_ssl_fail_verify_error_total"],
    [
      "an expired SVID",
      () => testSvid(mesh.ca, id("printer"), { notBeforeMs: NOW - 2 * HOUR, notAfterMs: NOW - HOUR }),
      "envoy_ssl_fail_verify_error_total",
    ],
    [
      "an SVID of tomorrow",
      () => testSvid(mesh.ca, id("printer"), { notBeforeMs: NOW + HOUR, notAfterMs: NOW + 2 * HOUR }),
      "envoy_ssl_fail_verify_error_total",
    ],
    ["two URI names", () => raw({ uris: [id("printer"), id("shop")] }), "envoy_ssl_fail_verify_error_total"],
    ["a DNS name only", () => raw({ dnsNames: ["printer.prod"] }), "envoy_ssl_fail_verify_error_total"],
    ["no name at all", () => raw({}), "envoy_ssl_fail_verify_error_total"],
    [
      "a CA certificate as leaf",
      () => raw({ ...CA_EXTENSIONS, uris: [id("printer")] }),
      "envoy_ssl_fail_verify_error_total",
    ],
    [
      "another trust domain",
      () => raw({ uris: ["spiffe://other.test/ns/prod/sa/printer"] }),
      "envoy_ssl_fail_verify_error_total",
    ],
    ["the trust domain's own ID", () => raw({ uris: ["spiffe://example.com"] }), "envoy_ssl_fail_verify_error_total"],
    ["a self-signed SVID", () => selfSigned(), "envoy_ssl_fail_verify_error_total"],
  ];
  const selfSigned = (): ClientIdentity => {
    const key = testKey();
    const issuer = { ...key, name: mesh.ca.name, der: mesh.ca.der };
    return { chain: [testLeaf(issuer, id("printer"), {}, key), mesh.ca.der], keyDer: der(key) };
  };

  for (const [name, identity, counted] of refused) {
    it(`refuses ${name}: no byte reaches the service, and it is counted`, async () => {
      const [errors, kind] = [ssl("envoy_ssl_connection_error_total"), ssl(counted)];
      const { inboundPort } = mesh.member("shop");
      const answer = await mtls(inboundPort, identity()).then(
        (socket) => untilClosed(socket, REQUEST),
        () => "",
      );
      assert.equal(answer, "");
      assert.equal(mesh.member("shop").seen, "");
      assert.equal(ssl("envoy_ssl_connection_error_total"), errors + 1);
      assert.equal(ssl(counted), kind + 1);
    });
  }

  it("refuses TLS 1.2", async () => {
    const tls = await import("node:tls");
    const errors = ssl("envoy_ssl_connection_error_total");
    const socket = tls.connect({ port: mesh.member("shop").inboundPort, host: "127.0.0.1", maxVersion: "TLSv1.2" });
    await untilClosed(socket);
    assert.equal(ssl("envoy_ssl_connection_error_total"), errors + 1);
  });

  it("refuses plaintext: no byte reaches the service; counted, and recorded without a source", async () => {
    const { sidecar, inboundPort } = mesh.member("shop");
    sidecar.denials.take(1_000);
    const before = counter(mesh, "shop", "everyhop_plaintext_refused_total");
    assert.equal(await untilClosed(await plain(inboundPort), REQUEST), "");
    assert.equal(mesh.member("shop").seen, "");
    assert.equal(counter(mesh, "shop", "everyhop_plaintext_refused_total"), before + 1);
    const [denial] = sidecar.denials.take(1);
    assert.equal(denial?.verdict.reason, "plaintext-refused");
    assert.equal(denial?.source, null);
    assert.equal(denial?.sourceIp, "127.0.0.1");
    assert.equal(denial?.port, 8080);
  });

  it("resumes no session: each connection proves its identity anew", async () => {
    const tls = await import("node:tls");
    const { inboundPort } = mesh.member("shop");
    const svid = testSvid(mesh.ca, id("printer"));
    const first = await mtls(inboundPort, svid);
    let session: Buffer | undefined;
    first.on("session", (ticket: Buffer) => {
      session = ticket;
    });
    await untilClosed(first, REQUEST);
    assert.ok(session !== undefined, "the test needs a ticket to offer");
    {
      const { pem, pemChain } = await import("../io/tls.ts");
      const again = tls.connect({
        port: inboundPort,
        host: "127.0.0.1",
        rejectUnauthorized: false,
        session,
        cert: pemChain(svid.chain),
        key: pem("PRIVATE KEY", svid.keyDer),
      });
      await new Promise((resolve) => again.once("secureConnect", resolve));
      assert.equal(again.isSessionReused(), false);
      again.destroy();
    }
  });

  it("serves the right identity, and tells the service who asks", async () => {
    mesh.member("shop").seen = "";
    const svid = testSvid(mesh.ca, id("printer"));
    const forged = "x-forwarded-client-cert: By=a;URI=spiffe://example.com/ns/prod/sa/admin\r\n";
    const socket = await mtls(mesh.member("shop").inboundPort, svid);
    const answer = await untilClosed(socket, REQUEST.replace("Connection", `${forged}Connection`));
    assert.match(answer, /^HTTP\/1.1 200 OK\r\n[\s\S]*GET \/secret 0$/);
    const { seen } = mesh.member("shop");
    assert.match(
      seen,
      new RegExp(`x-forwarded-client-cert: By=${id("shop")};Hash=[0-9a-f]{64};URI=${id("printer")}\r\n`),
    );
    assert.ok(!seen.includes("admin") && !/connection:/i.test(seen));
  });

  it("follows a leaf through an intermediate CA", async () => {
    const key = testKey();
    const intermediate = testCa("intermediate", {}, mesh.ca);
    const identity = { chain: [testLeaf(intermediate, id("printer"), {}, key), intermediate.der], keyDer: der(key) };
    const socket = await mtls(mesh.member("shop").inboundPort, identity);
    assert.match(await untilClosed(socket, REQUEST), /^HTTP\/1.1 200 /);
  });

  it("the outbound side refuses a server that is not the one registered", async () => {
    const { sidecar, outboundPort } = mesh.member("printer");
    const shop = mesh.member("shop").sidecar;
    const right = shop.state.svid.value;
    shop.state.svid.set(testSvid(mesh.ca, id("impostor")));
    const before = counter(mesh, "printer", "envoy_ssl_fail_verify_san_total");
    mesh.member("shop").seen = "";
    const reply = await ask(outboundPort("shop"));
    assert.equal(reply.status, 503);
    assert.ok(!reply.body.includes("spiffe://"));
    assert.equal(mesh.member("shop").seen, "");
    assert.equal(counter(mesh, "printer", "envoy_ssl_fail_verify_san_total"), before + 1);
    assert.equal(sidecar.connections.size <= 1, true);
    shop.state.svid.set(right);
    assert.equal((await ask(outboundPort("shop"))).status, 200);
  });

  it("a permissive port takes plaintext, as nobody", async () => {
    const { testEnforcer } = await import("./fixture.ts");
    const seen: (string | null)[] = [];
    mesh.enforcers.set(
      "shop",
      testEnforcer((principal) => {
        seen.push(principal);
        return true;
      }, "PERMISSIVE"),
    );
    mesh.push();
    const answer = await untilClosed(await plain(mesh.member("shop").inboundPort), REQUEST);
    assert.match(answer, /^HTTP\/1.1 200 /);
    assert.deepEqual(seen, [null]);
    // Back to strict: a plaintext connection that lives is closed.
    const socket = await plain(mesh.member("shop").inboundPort);
    const first = untilMatch(socket, /GET \/ 0$/);
    socket.write("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
    await first;
    const closed = untilClosed(socket);
    mesh.enforcers.delete("shop");
    mesh.push();
    assert.equal(await closed, "");
  });
});

/** The sum of a metric's series. */
function counter(mesh: TestMesh, member: string, name: string): number {
  return mesh
    .member(member)
    .sidecar.telemetry.registry.text()
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}
