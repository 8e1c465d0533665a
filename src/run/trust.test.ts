/** Servers of different trust domains that take each other's bundles, over real TLS, by both profiles. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { parseTrustDomain } from "../core/spiffe/id.ts";
import { HOUR, testCa, testKey, testLeaf } from "../core/x509/fixture.ts";
import { localSigner } from "../identity/authority/fixture.ts";
import { systemClock } from "../io/clock.ts";
import { silentLog } from "../io/log.ts";
import { pem, pemChain } from "../io/tls.ts";
import { type RunningServer, startServer } from "./server.ts";
import { readServerConfig } from "./server-config.ts";

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-federation-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

/** A server of `trustDomain`; `more` are lines of its configuration. */
async function serverOf(t: TestContext, dir: string, trustDomain: string, more: string): Promise<RunningServer> {
  const file = join(dir, `${trustDomain}.yaml`);
  const free = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
  writeFileSync(file, `trustDomain: ${trustDomain}\ndataDir: ${trustDomain}\n${free}${more}`);
  const server = await startServer(readServerConfig(file), {
    log: silentLog,
    openSigner: (setup) => localSigner(setup, { clock: systemClock }),
  });
  t.after(() => server.close());
  return server;
}

/** Files of an `https_web` endpoint on localhost, and its authority. */
function webFiles(dir: string): void {
  const times = { notBeforeMs: Date.now() - HOUR, notAfterMs: Date.now() + HOUR };
  const ca = testCa("web root", times);
  const key = testKey();
  const leaf = testLeaf(ca, "spiffe://web.example/x", { ...times, dnsNames: ["localhost"] }, key);
  writeFileSync(join(dir, "web-ca.pem"), pem("CERTIFICATE", ca.der));
  writeFileSync(join(dir, "tls.crt"), pemChain([leaf]));
  writeFileSync(join(dir, "tls.key"), pem("PRIVATE KEY", key.key.export({ format: "der", type: "pkcs8" })));
}

const ders = (authorities: readonly Uint8Array[] | undefined) => authorities?.map((der) => Buffer.from(der));

test("a server takes the bundles of two others: one known by its SPIFFE ID, one by the web", async (t) => {
  const dir = folder(t);
  webFiles(dir);
  const spiffe = await serverOf(t, dir, "spiffe.test", "federation: {bundleEndpoint: {listen: '127.0.0.1:0'}}\n");
  const pair = "certFile: tls.crt, keyFile: tls.key";
  const endpoint = `{listen: '127.0.0.1:0', profile: https_web, ${pair}}`;
  const web = await serverOf(t, dir, "web.test", `federation: {bundleEndpoint: ${endpoint}}\n`);
  writeFileSync(join(dir, "spiffe.pem"), pemChain(spiffe.identity.authorities.value));
  const webPort = web.ready.bundleEndpoint?.split(":").at(-1);
  const ours = await serverOf(
    t,
    dir,
    "ours.test",
    `
federation:
  webCaFile: web-ca.pem
  federatesWith:
    spiffe.test:
      url: https://${spiffe.ready.bundleEndpoint}/
      profile: https_spiffe
      endpointSpiffeId: spiffe://spiffe.test/spire/server
      bundleFile: spiffe.pem
    web.test: {url: 'https://localhost:${webPort}/', profile: https_web}
`,
  );
  const { bundles, federation } = ours.identity;
  for (const [name, theirs] of [
    ["spiffe.test", spiffe],
    ["web.test", web],
  ] as const) {
    const trustDomain = parseTrustDomain(name);
    await federation.refresh(trustDomain);
    const bundle = bundles.federatedWith(trustDomain);
    assert.deepEqual(ders(bundle?.x509Authorities), ders(theirs.identity.authorities.value), name);
    assert.equal(bundle?.jwtAuthorities.length, 1, name);
    assert.equal(bundle?.refreshHintMs, 300_000);
  }
  // Their key rotates; the endpoint shows the new SVID, and is known by the bundle that was fetched before.
  const { x509 } = spiffe.authority;
  const old = x509.active().id;
  await x509.activate((await x509.prepare()).id);
  await federation.refresh(parseTrustDomain("spiffe.test"));
  const renewed = new Promise((resolve) => void spiffe.identity.svid.watch(resolve));
  await x509.taint(old);
  await renewed;
  await x509.revoke(old);
  await federation.refresh(parseTrustDomain("spiffe.test"));
  const last = bundles.federatedWith(parseTrustDomain("spiffe.test"))?.x509Authorities;
  assert.deepEqual(ders(last), ders(spiffe.identity.authorities.value));
  assert.equal(last?.length, 1);
});

test("what the configuration says of federation is checked together, with its places", (t) => {
  const dir = folder(t);
  const file = join(dir, "server.yaml");
  const faults = (federation: string) => {
    writeFileSync(file, `trustDomain: a.test\ndataDir: d\nfederation: ${federation}\n`);
    try {
      readServerConfig(file);
      return [];
    } catch (error) {
      return (error as { issues: { message: string; line: number }[] }).issues.map(({ message }) => message);
    }
  };
  const cases: readonly (readonly [string, RegExp])[] = [
    ["{bundleEndpoint: {profile: https_web}}", /`https_web` needs `certFile` and `keyFile`/],
    ["{bundleEndpoint: {certFile: a, keyFile: b}}", /belong to `https_web`/],
    ["{federatesWith: {b.test: {url: 'http://b/', profile: https_web}}}", /must use the https scheme/],
    ["{federatesWith: {b.test: {url: 'https://b/', profile: https_spiffe}}}", /needs `endpointSpiffeId`/],
    ["{federatesWith: {a.test: {url: 'https://b/', profile: https_web}}}", /does not federate with itself/],
    ["{federatesWith: {B.test: {url: 'https://b/', profile: https_web}}}", /no trust domain/],
    ["{federatesWith: {b.test: {url: 'https://b/', profile: web}}}", /one of/],
    [
      "{federatesWith: {b.test: {url: 'https://b/', profile: https_web, endpointSpiffeId: 'spiffe://b.test/x'}}}",
      /belongs to `https_spiffe`/,
    ],
  ];
  for (const [federation, message] of cases) {
    assert.match(faults(federation).join("\n"), message, federation);
  }
  assert.deepEqual(faults("{bundleEndpoint: {}}"), []);
});

test("what the configuration says of an authority above is checked together", (t) => {
  const dir = folder(t);
  const file = join(dir, "server.yaml");
  const faults = (upstream: string): string => {
    writeFileSync(file, `trustDomain: a.test\ndataDir: d\nupstreamAuthority: ${upstream}\n`);
    try {
      readServerConfig(file);
      return "";
    } catch (error) {
      return (error as { issues: { message: string }[] }).issues.map(({ message }) => message).join("\n");
    }
  };
  assert.match(faults("{kind: disk, certFile: a}"), /`kind: disk` needs `keyFile`/);
  assert.match(faults("{kind: spire, server: 'a:1'}"), /`kind: spire` needs `workloadApiSocket`/);
  assert.match(
    faults("{kind: disk, certFile: a, keyFile: b, server: 'a:1'}"),
    /`server` means nothing with `kind: disk`/,
  );
  assert.match(faults("{kind: vault}"), /one of/);
  assert.equal(faults("{kind: spire, server: 'a:1', workloadApiSocket: 'unix:///run/a.sock'}"), "");
  assert.equal(faults("{kind: disk, certFile: a, keyFile: b}"), "");
});
