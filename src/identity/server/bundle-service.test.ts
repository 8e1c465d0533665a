import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { parseCertificate } from "../../core/x509/certificate.ts";
import {
  Bundle,
  BatchDeleteFederatedBundleRequest_Mode as Mode,
} from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { BundleMaskSchema, BundleSchema } from "../../gen/spire/api/types/bundle_pb.js";
import { id, testServer, wire, wireSelector } from "./fixture.ts";

const spki = (): Uint8Array =>
  generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { format: "der", type: "spki" },
    privateKeyEncoding: { format: "der", type: "pkcs8" },
  }).publicKey;

/** Another trust domain's bundle; the certificate is any that parses. */
function foreign(asn1: Uint8Array, change: object = {}) {
  return create(BundleSchema, {
    trustDomain: "other.org",
    x509Authorities: [{ asn1 }],
    jwtAuthorities: [{ keyId: "k1", publicKey: spki(), expiresAt: 4_000_000_000n }],
    refreshHint: 60n,
    sequenceNumber: 7n,
    ...change,
  });
}

test("our own bundle is anyone's, grows with each change, and with each mask bit has its own field alone", async (t) => {
  const server = await testServer(t);
  const bundles = server.remote(Bundle, null);
  const whole = await bundles.getBundle({});
  assert.deepEqual(whole.x509Authorities[0]?.asn1, Buffer.from(server.identity.authorities.value[0] ?? []));
  assert.equal(whole.jwtAuthorities.length, 1);
  const nothing = create(BundleSchema, { trustDomain: "example.com" });
  for (const { localName } of BundleMaskSchema.fields) {
    const masked = await bundles.getBundle({ outputMask: create(BundleMaskSchema, { [localName]: true }) });
    assert.deepEqual(masked, { ...nothing, [localName]: whole[localName as keyof typeof whole] }, localName);
  }
  await server.authority.x509.prepare();
  const prepared = await bundles.getBundle({});
  assert.ok(prepared.sequenceNumber > whole.sequenceNumber);
  assert.equal(prepared.x509Authorities.length, 2);
});

test("a tainted authority is marked", async (t) => {
  const server = await testServer(t);
  const old = server.authority.x509.active();
  const { id: next } = await server.authority.x509.prepare();
  await server.authority.x509.activate(next);
  await server.authority.x509.taint(old.id);
  const { x509Authorities } = await server.local(Bundle).getBundle({});
  assert.deepEqual(
    x509Authorities.map(({ asn1, tainted }) => [parseCertificate(asn1).subjectKeyId === old.id, tainted]),
    [
      [true, true],
      [false, false],
    ],
  );
});

test("what is appended stays, counts as a change, and comes once", async (t) => {
  const server = await testServer(t);
  const bundles = server.local(Bundle);
  const before = await bundles.getBundle({});
  const jwtAuthorities = [{ keyId: "mine", publicKey: spki() }];
  const { x509Authorities: again } = before;
  const after = await bundles.appendBundle({ jwtAuthorities, x509Authorities: again });
  assert.equal(after.x509Authorities.length, before.x509Authorities.length);
  assert.equal(after.jwtAuthorities.at(-1)?.keyId, "mine");
  assert.ok(after.sequenceNumber > before.sequenceNumber);
  await assert.rejects(bundles.appendBundle({}), { code: status.INVALID_ARGUMENT });
  const broken = { x509Authorities: [{ asn1: Buffer.from("no certificate") }] };
  await assert.rejects(bundles.appendBundle(broken), { code: status.INVALID_ARGUMENT });
  const noKey = { jwtAuthorities: [{ keyId: "x", publicKey: Buffer.from("no key") }] };
  await assert.rejects(bundles.appendBundle(noKey), { code: status.INVALID_ARGUMENT });
});

test("bundles of other trust domains: made, replaced, changed by mask, listed, counted", async (t) => {
  const server = await testServer(t);
  const bundles = server.local(Bundle);
  const der = server.identity.authorities.value[0]!;
  const bundle = foreign(der);
  const code = (answer: { results: { status?: { code: number } | undefined }[] }) => answer.results[0]?.status?.code;
  assert.equal(code(await bundles.batchUpdateFederatedBundle({ bundle: [bundle] })), status.NOT_FOUND);
  assert.equal(code(await bundles.batchCreateFederatedBundle({ bundle: [bundle] })), status.OK);
  assert.equal(code(await bundles.batchCreateFederatedBundle({ bundle: [bundle] })), status.ALREADY_EXISTS);
  assert.deepEqual(await bundles.getFederatedBundle({ trustDomain: "other.org" }), bundle);
  const inputMask = { refreshHint: true };
  const changed = foreign(der, { refreshHint: 90n, sequenceNumber: 9n, jwtAuthorities: [] });
  assert.equal(code(await bundles.batchUpdateFederatedBundle({ bundle: [changed], inputMask })), status.OK);
  assert.deepEqual(await bundles.getFederatedBundle({ trustDomain: "other.org" }), { ...bundle, refreshHint: 90n });
  await bundles.batchSetFederatedBundle({ bundle: [changed, { ...changed, trustDomain: "third.org" }] });
  assert.equal((await bundles.countBundles({})).count, 3);
  const page = await bundles.listFederatedBundles({ pageSize: 1 });
  const rest = await bundles.listFederatedBundles({ pageSize: 1, pageToken: page.nextPageToken });
  assert.deepEqual(
    [...page.bundles, ...rest.bundles].map((one) => one.trustDomain),
    ["other.org", "third.org"],
  );
  assert.equal(rest.nextPageToken, "");
});

test("our own trust domain is no federated one", async (t) => {
  const server = await testServer(t);
  const bundles = server.local(Bundle);
  const own = foreign(server.identity.authorities.value[0]!, { trustDomain: "example.com" });
  const { results } = await bundles.batchSetFederatedBundle({ bundle: [own] });
  assert.equal(results[0]?.status?.code, status.INVALID_ARGUMENT);
  const deleted = await bundles.batchDeleteFederatedBundle({ trustDomains: ["example.com"] });
  assert.equal(deleted.results[0]?.status?.code, status.INVALID_ARGUMENT);
  await assert.rejects(bundles.getFederatedBundle({ trustDomain: "example.com" }), { code: status.INVALID_ARGUMENT });
});

test("deleting a bundle that entries federate with: refused, or taken out of them, or with them", async (t) => {
  const server = await testServer(t);
  const bundles = server.local(Bundle);
  const entries = server.local(Entry);
  const set = async () => {
    await bundles.batchSetFederatedBundle({ bundle: [foreign(server.identity.authorities.value[0]!)] });
  };
  const entry = { id: "e", spiffeId: wire(id("/a")), parentId: wire(id("/n")), selectors: [wireSelector("a:1")] };
  const remove = async (mode: Mode) =>
    (await bundles.batchDeleteFederatedBundle({ trustDomains: ["other.org"], mode })).results[0]?.status?.code;
  await set();
  await entries.batchCreateEntry({ entries: [{ ...entry, federatesWith: ["other.org"] }] });
  assert.equal(await remove(Mode.RESTRICT), status.FAILED_PRECONDITION);
  assert.equal(await remove(Mode.DISSOCIATE), status.OK);
  assert.deepEqual((await entries.getEntry({ id: "e" })).federatesWith, []);
  assert.equal(await remove(Mode.DISSOCIATE), status.NOT_FOUND);
  await set();
  await entries.batchUpdateEntry({ entries: [{ ...entry, federatesWith: ["other.org"] }] });
  assert.equal(await remove(Mode.DELETE), status.OK);
  assert.equal((await entries.countEntries({})).count, 0);
});

test("an agent may read bundles of other trust domains, nobody without an identity may", async (t) => {
  const server = await testServer(t);
  await server.local(Bundle).batchSetFederatedBundle({ bundle: [foreign(server.identity.authorities.value[0]!)] });
  const agent = server.remote(Bundle, await server.agent());
  assert.equal((await agent.getFederatedBundle({ trustDomain: "other.org" })).trustDomain, "other.org");
  await assert.rejects(agent.getFederatedBundle({ trustDomain: "none.org" }), { code: status.NOT_FOUND });
  const nobody = server.remote(Bundle, null).getFederatedBundle({ trustDomain: "other.org" });
  await assert.rejects(nobody, { code: status.PERMISSION_DENIED });
});
