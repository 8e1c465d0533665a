/** go-spiffe's federation client, the reference, at our bundle endpoint in both profiles. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { HOUR, testCa, testKey, testLeaf } from "../../src/core/x509/fixture.ts";
import { silentLog } from "../../src/io/log.ts";
import { pem, pemChain } from "../../src/io/tls.ts";
import { startServer } from "../../src/run/server.ts";
import { readServerConfig } from "../../src/run/server-config.ts";
import { peer, without } from "../peers.ts";

const skip = without("go-spiffe");

for (const profile of ["https_spiffe", "https_web"] as const) {
  test(`it fetches our bundle by ${profile}`, { skip }, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), "everyhop-federation-"));
    t.after(() => rmSync(dir, { recursive: true }));
    const at = (name: string) => join(dir, name);
    const times = { notBeforeMs: Date.now() - HOUR, notAfterMs: Date.now() + HOUR };
    const ca = testCa("web root", times);
    const key = testKey();
    const leaf = testLeaf(ca, "spiffe://web.example/x", { ...times, dnsNames: ["localhost"] }, key);
    writeFileSync(at("web.pem"), pemChain([ca.der]));
    writeFileSync(at("tls.crt"), pemChain([leaf]));
    writeFileSync(at("tls.key"), pem("PRIVATE KEY", key.key.export({ format: "der", type: "pkcs8" })));
    const files = profile === "https_web" ? ", certFile: tls.crt, keyFile: tls.key" : "";
    const endpoint = `{listen: '127.0.0.1:0', profile: ${profile}, refreshHint: 2m${files}}`;
    const free = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
    const config = `trustDomain: example.com\ndataDir: data\n${free}federation: {bundleEndpoint: ${endpoint}}\n`;
    writeFileSync(at("server.yaml"), config);
    const server = await startServer(readServerConfig(at("server.yaml")), { log: silentLog });
    t.after(() => server.close());
    const url = `https://localhost:${server.ready.bundleEndpoint?.split(":").at(-1)}/`;
    const spiffe = ["-id", "spiffe://example.com/spire/server", "-bundle", server.ready.trustBundle];
    const args = ["fetch-bundle", "-trust-domain", "example.com", "-url", url];
    const said = await new Promise<string>((resolve) => {
      const env = { ...process.env, SSL_CERT_FILE: at("web.pem") };
      const all = profile === "https_spiffe" ? [...args, ...spiffe] : args;
      execFile(peer("go-spiffe") as string, all, { env }, (_error, out, err) => resolve(out + err));
    });
    assert.deepEqual(JSON.parse(said), {
      trustDomain: "example.com",
      x509Authorities: 1,
      jwtAuthorities: 1,
      sequence: Number(server.identity.bundles.own.value.sequence),
      refreshHint: 120,
    });
  });
}
