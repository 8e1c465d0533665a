/** What a server below us asks for: its CA, and that its JWT keys are known. */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { validatePath } from "../../core/x509/path.ts";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { id, svidOf, type TestServer, testKey, testServer } from "./fixture.ts";

const spki = (): Uint8Array =>
  generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "der", type: "spki" });
const denied = (error: { code: number }) => error.code === status.PERMISSION_DENIED;

/** An SVID of `path` with an entry that says `downstream` or not. */
async function workload(server: TestServer, path: string, rights: { downstream?: boolean; admin?: boolean }) {
  const agent = await server.agent();
  const key = testKey();
  const entryId = await server.entry(id(path), agent.id);
  await server.registry.updateEntry(entryId, (entry) => ({ ...entry, ...rights }));
  const { results } = await server.remote(SVID, agent).batchNewX509SVID({ params: [{ entryId, csr: key.csr }] });
  return { agent, entryId, svid: svidOf(results[0]?.svid?.certChain ?? [], key) };
}

test("a downstream entry, and nothing else, gets a CA below ours; it ends with ours at the latest", async (t) => {
  const server = await testServer(t);
  const { csr } = testKey();
  const { agent, entryId, svid } = await workload(server, "/downstream", { downstream: true });
  const other = await workload(server, "/ops", { admin: true });
  for (const caller of [null, agent, other.svid]) {
    await assert.rejects(server.remote(SVID, caller).newDownstreamX509CA({ csr }), denied);
  }
  await assert.rejects(server.local(SVID).newDownstreamX509CA({ csr }), denied);

  const client = server.remote(SVID, svid);
  const { caCertChain, x509Authorities } = await client.newDownstreamX509CA({ csr, preferredTtl: 3_600 });
  assert.deepEqual(
    x509Authorities.map(Buffer.from),
    server.identity.authorities.value.map((der) => Buffer.from(der)),
  );
  const [ca] = caCertChain.map(parseCertificate);
  assert.deepEqual(ca?.names?.uris, ["spiffe://example.com"]);
  assert.equal(ca?.basicConstraints?.ca, true);
  assert.ok(Math.abs((ca?.notAfterMs ?? 0) - (server.clock.now() + 3_600_000)) <= 1_000);
  assert.equal(validatePath([ca!], x509Authorities, server.clock.now()).ok, true);
  const authenticates = verifyX509Svid(caCertChain, () => server.identity.bundles.own.value, server.clock.now());
  assert.equal(authenticates.ok ? "" : authenticates.reason, "root-path", "it authenticates nobody");

  const long = await client.newDownstreamX509CA({ csr, preferredTtl: 2 ** 31 - 1 });
  const end = parseCertificate(long.caCertChain[0] ?? new Uint8Array()).notAfterMs;
  assert.ok(end <= server.authority.x509.active().notAfterMs);
  await assert.rejects(client.newDownstreamX509CA({ csr: Buffer.from("x") }), { code: status.INVALID_ARGUMENT });
  await assert.rejects(client.newDownstreamX509CA({ csr, preferredTtl: -1 }), { code: status.INVALID_ARGUMENT });

  const journal = await server.store.issuance.list({ limit: 100 });
  const made = journal.records.filter(({ kind, entryId: by }) => kind === "x509-ca" && by === entryId);
  assert.equal(made.length, 2, "each stands in the journal, with its entry");
  await server.registry.deleteEntry(entryId);
  await assert.rejects(client.newDownstreamX509CA({ csr }), denied);
});

test("a JWT key from below is in everybody's bundle until it ends, and takes nobody's name", async (t) => {
  const server = await testServer(t);
  const { agent, svid } = await workload(server, "/downstream", { downstream: true });
  const bundles = server.remote(Bundle, svid);
  const expiresAt = BigInt(Math.floor(server.clock.now() / 1_000) + 3_600);
  const jwtAuthority = { keyId: "below", publicKey: spki(), expiresAt };
  await assert.rejects(server.remote(Bundle, agent).publishJWTAuthority({ jwtAuthority }), denied);
  const { jwtAuthorities } = await bundles.publishJWTAuthority({ jwtAuthority });
  assert.deepEqual(jwtAuthorities.map(({ keyId }) => keyId).includes("below"), true);
  assert.equal((await bundles.publishJWTAuthority({ jwtAuthority })).jwtAuthorities.length, jwtAuthorities.length);
  const ours = server.authority.jwt.active().id;
  for (const keyId of ["below", ours]) {
    const stolen = bundles.publishJWTAuthority({ jwtAuthority: { ...jwtAuthority, keyId, publicKey: spki() } });
    await assert.rejects(stolen, { code: status.INVALID_ARGUMENT });
  }
  await assert.rejects(bundles.publishJWTAuthority({}), { code: status.INVALID_ARGUMENT });
  const endless = bundles.publishJWTAuthority({ jwtAuthority: { ...jwtAuthority, keyId: "endless", expiresAt: 0n } });
  await assert.rejects(endless, { code: status.INVALID_ARGUMENT });
  await server.identity.bundles.prune(server.clock.now() + 3_600_000);
  assert.deepEqual(
    server.identity.bundles.own.value.jwtAuthorities.map(({ keyId }) => keyId),
    [ours],
  );
});
