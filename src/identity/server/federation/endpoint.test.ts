/** Each MUST of SPIFFE_Federation for who serves an endpoint. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect, type SecureContextOptions } from "node:tls";
import { Cell } from "../../../core/base/cell.ts";
import { FakeClock } from "../../../core/base/clock.ts";
import { parseBundle } from "../../../core/spiffe/bundle.ts";
import { parseCertificate } from "../../../core/x509/certificate.ts";
import { testKey, testLeaf } from "../../../core/x509/fixture.ts";
import { peerChain, pem, pemChain } from "../../../io/tls.ts";
import { testServer, trustDomain } from "../fixture.ts";
import { serveBundleEndpoint, spiffeCredentials, webCredentials } from "./endpoint.ts";
import { currentCa } from "./fixture.ts";

async function serving(t: TestContext, options: { credentials?: Cell<SecureContextOptions> } = {}) {
  const server = await testServer(t);
  const listener = await serveBundleEndpoint({
    listen: { host: "127.0.0.1", port: 0 },
    credentials: options.credentials ?? spiffeCredentials(server.identity.svid),
    bundle: server.identity.bundles.own,
    refreshHintMs: 120_000,
  });
  t.after(() => listener.close());
  const ask = (method = "GET", path = "/"): Promise<{ status: number; type: string; body: string }> =>
    new Promise((resolve, reject) => {
      const options = { host: "127.0.0.1", port: listener.port, method, path, rejectUnauthorized: false, agent: false };
      const asking = request(options, (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          body += chunk;
        });
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, type: response.headers["content-type"] ?? "", body }),
        );
      });
      asking.on("error", reject);
      asking.end();
    });
  const shake = (options: object): Promise<readonly Uint8Array[]> =>
    new Promise((resolve, reject) => {
      const socket = connect({ host: "127.0.0.1", port: listener.port, rejectUnauthorized: false, ...options });
      socket.once("secureConnect", () => {
        resolve(peerChain(socket));
        socket.destroy();
      });
      socket.once("error", reject);
    });
  return { server, ask, shake };
}

test("§5.2.2.3: GET of the path gives the newest bundle, as application/json, with sequence and hint", async (t) => {
  const { server, ask } = await serving(t);
  const { status, type, body } = await ask();
  assert.deepEqual([status, type], [200, "application/json"]);
  const bundle = parseBundle(trustDomain, body);
  assert.deepEqual([bundle.x509Authorities.length, bundle.jwtAuthorities.length], [1, 1]);
  assert.deepEqual([bundle.sequence, bundle.refreshHintMs], [server.identity.bundles.own.value.sequence, 120_000]);
  await server.authority.x509.prepare();
  const after = parseBundle(trustDomain, (await ask()).body);
  assert.equal(after.x509Authorities.length, 2, "§4.1: a new key is published before it signs");
  // SPIFFE_Trust_Domain_and_Bundle §4.1.1: changes with the contents, upwards.
  assert.ok(after.sequence > bundle.sequence);
});

test("SPIFFE_Trust_Domain_and_Bundle §4.2, X509-SVID §6, JWT-SVID §4: what each key of the document says", async (t) => {
  const { ask } = await serving(t);
  const { keys } = JSON.parse((await ask()).body) as { keys: { use: string; x5c?: string[] }[] };
  const [x509, jwt] = keys;
  assert.deepEqual(Object.keys(x509 ?? {}).sort(), ["crv", "kty", "use", "x", "x5c", "y"]);
  assert.deepEqual([x509?.use, x509?.x5c?.length], ["x509-svid", 1]);
  assert.deepEqual(Object.keys(jwt ?? {}).sort(), ["crv", "kid", "kty", "use", "x", "y"]);
  assert.equal(jwt?.use, "jwt-svid");
});

test("GET of `/` alone is answered", async (t) => {
  const { ask } = await serving(t);
  assert.equal((await ask("POST")).status, 405);
  assert.equal((await ask("PUT")).status, 405);
  assert.equal((await ask("GET", "/bundle.json")).status, 404);
  assert.equal((await ask("GET", "/metrics")).status, 404);
  assert.equal((await ask("GET", "//")).status, 404);
});

test("§5.2.2.3: the certificate is the server's X.509-SVID, as it is renewed, and none is asked of the client", async (t) => {
  const { server, shake } = await serving(t);
  const leaf = async () => parseCertificate((await shake({}))[0] ?? new Uint8Array());
  assert.deepEqual((await leaf()).names?.uris, ["spiffe://example.com/spire/server"]);
  const renewed = new Promise((resolve) => void server.identity.svid.watch(resolve));
  server.clock.advance(1_800_000);
  await renewed;
  assert.equal((await leaf()).serial, server.identity.svid.value.serial);
});

test("§5: TLS as Mozilla's intermediate: 1.2 and 1.3, with forward secrecy; nothing older", async (t) => {
  const { shake } = await serving(t);
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    assert.equal((await shake({ minVersion: version, maxVersion: version })).length, 1);
  }
  await assert.rejects(shake({ minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" }));
  await assert.rejects(shake({ maxVersion: "TLSv1.2", ciphers: "AES128-SHA" }));
});

test("https_web: files that change are read again; a pair that does not fit is not used", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-web-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const [certFile, keyFile] = [join(dir, "tls.crt"), join(dir, "tls.key")];
  const ca = currentCa("web root");
  const write = (): string => {
    const key = testKey();
    const cert = pemChain([testLeaf(ca, "spiffe://web.example/x", { notAfterMs: Date.now() + 60_000 }, key)]);
    writeFileSync(certFile, cert);
    writeFileSync(keyFile, pem("PRIVATE KEY", key.key.export({ format: "der", type: "pkcs8" })));
    return cert;
  };
  const clock = new FakeClock();
  const errors: unknown[] = [];
  const options = { certFile, keyFile, clock, onError: (error: unknown) => errors.push(error) };
  assert.throws(() => webCredentials(options), /cannot read/);
  const first = write();
  const { credentials, close } = webCredentials(options);
  t.after(close);
  const seen = new Cell(credentials.value.cert);
  credentials.watch(({ cert }) => seen.set(cert));
  assert.equal(seen.value, first);
  const second = write();
  clock.advance(60_000);
  assert.equal(seen.value, second);
  writeFileSync(keyFile, "no key");
  clock.advance(60_000);
  assert.deepEqual([seen.value, errors.length], [second, 1]);
  const third = write();
  clock.advance(60_000);
  assert.equal(seen.value, third);
});
