import assert from "node:assert/strict";
import { generateKeyPairSync, randomBytes, verify } from "node:crypto";
import { test } from "node:test";
import { parseSpiffeId, parseTrustDomain } from "../../core/spiffe/id.ts";
import { testCsr, testKey } from "../../core/x509/fixture.ts";
import { RecordingJournal } from "./fixture.ts";
import { createJwtAuthority } from "./jwt-authority.ts";
import { intend, Signer, SigningPermit } from "./permit.ts";
import { createX509Authority, loadX509Authority } from "./x509-authority.ts";

const trustDomain = parseTrustDomain("example.com");
const spiffeId = parseSpiffeId("spiffe://example.com/a");
const NOW = Date.UTC(2030, 0, 1, 0, 0, 0, 500);
const INTENT = {
  kind: "x509-svid",
  serial: "01",
  spiffeId,
  entryId: "e",
  authorityId: "a",
  notBeforeMs: 0,
  notAfterMs: 1,
  dnsNames: [],
  audiences: [],
} as const;

const context = (journal = new RecordingJournal()) => ({ trustDomain, journal, random: randomBytes });

test("a permit signs once, and the very bytes that were linted", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const signer = new Signer(privateKey);
  const bytes = Buffer.from("as linted");
  const permit = await intend(bytes, () => [], INTENT, new RecordingJournal());
  bytes.write("changed  ");
  const { bytes: signed, signature } = signer.sign(permit);
  assert.equal(Buffer.from(signed).toString(), "as linted");
  assert.ok(verify("sha256", signed, publicKey, signature));
  assert.throws(() => signer.sign(permit), /used twice/);
});

test("there is no other way to a permit", () => {
  assert.throws(() => new SigningPermit(Symbol("made by intend"), "01", Buffer.from("x")), /made by `intend` alone/);
});

test("a lint fault, a missing entry and a journal that fails each leave nothing signed", async () => {
  const journal = new RecordingJournal();
  await assert.rejects(
    intend(Buffer.of(1), () => ["too long"], INTENT, journal),
    /too long/,
  );
  await assert.rejects(
    intend(Buffer.of(1), () => [], { ...INTENT, entryId: "" }, journal),
    /without a registration entry/,
  );
  assert.equal(journal.intents.length, 0);
  journal.failNext = true;
  await assert.rejects(
    intend(Buffer.of(1), () => [], INTENT, journal),
    /disk is full/,
  );
});

test("the intent stands in the journal before the certificate exists", async () => {
  const journal = new RecordingJournal();
  const { authority } = await createX509Authority(context(journal), 3_600_000, NOW);
  journal.failNext = true;
  const request = { publicKey: { spki: testKey().spki }, spiffeId, ttlMs: 1000, entryId: "e" };
  await assert.rejects(authority.issue(request, NOW), /disk is full/);
  assert.equal(journal.records.size, 1, "only the CA itself");
});

test("what a CA refuses to sign", async (t) => {
  const { authority } = await createX509Authority(context(), 3_600_000, NOW);
  const base = { publicKey: { spki: testKey().spki }, spiffeId, ttlMs: 60_000, entryId: "e" };
  const stolen = testCsr({ key: testKey().key, spki: testKey().spki });
  const cases: readonly (readonly [string, object, RegExp])[] = [
    ["an ID of another trust domain", { spiffeId: parseSpiffeId("spiffe://other.test/a") }, /not in the trust domain/],
    ["no entry", { entryId: "" }, /without a registration entry/],
    ["a CSR for a key the asker does not hold", { publicKey: { csr: stolen } }, /does not verify/],
    ["no key", { publicKey: { spki: new Uint8Array() } }, /malformed DER/],
    ["a lifetime under a second", { ttlMs: 100 }, /still valid/],
    ["a DNS name that is none", { dnsNames: ["not a name"] }, /DNS/],
    ["a DNS name with a NUL", { dnsNames: ["a.example\0.evil"] }, /DNS/],
    ["the trust domain's own ID", { spiffeId: parseSpiffeId("spiffe://example.com") }, /root/],
  ];
  for (const [name, change, message] of cases) {
    await t.test(name, () => assert.rejects(authority.issue({ ...base, ...change }, NOW), message));
  }
  await t.test("anything once it expired", () => assert.rejects(authority.issue(base, NOW + 3_600_000), /still valid/));
  await t.test("nothing outlives the CA", async () => {
    const svid = await authority.issue({ ...base, ttlMs: 7_200_000 }, NOW);
    assert.equal(svid.notAfterMs, authority.notAfterMs);
  });
});

test("what a JWT key refuses to sign", async () => {
  const { authority } = createJwtAuthority(context(), 3_600_000, NOW);
  const base = { spiffeId, audiences: ["a"], ttlMs: 60_000, entryId: "e" };
  await assert.rejects(authority.issue({ ...base, audiences: [] }, NOW), /audiences/);
  await assert.rejects(authority.issue({ ...base, audiences: [""] }, NOW), /audiences/);
  await assert.rejects(authority.issue({ ...base, audiences: Array(65).fill("a") }, NOW), /audiences/);
  await assert.rejects(authority.issue({ ...base, entryId: "" }, NOW), /registration entry/);
  await assert.rejects(
    authority.issue({ ...base, spiffeId: parseSpiffeId("spiffe://other.test/a") }, NOW),
    /trust domain/,
  );
  const journaled = new RecordingJournal();
  const { authority: second } = createJwtAuthority(context(journaled), 3_600_000, NOW);
  const { token } = await second.issue({ ...base, includeJwtId: true, issuer: "https://i.example" }, NOW);
  const claims = JSON.parse(Buffer.from(token.split(".")[1] as string, "base64url").toString());
  assert.equal(claims.jti, journaled.intents[0]?.serial);
  assert.equal(claims.iss, "https://i.example");
  assert.ok(![...journaled.records.values()].some((kept) => Buffer.from(kept).toString("latin1").includes(token)));
});

test("a stored CA must be whole", async () => {
  const { pem } = await createX509Authority(context(), 3_600_000, NOW);
  const { pem: other } = await createX509Authority(context(), 3_600_000, NOW);
  assert.equal(loadX509Authority(context(), pem).id.length, 40);
  const [key = "", certificate = ""] = [
    pem.slice(0, pem.indexOf("-----BEGIN CERT")),
    other.slice(other.indexOf("-----BEGIN CERT")),
  ];
  assert.throws(() => loadX509Authority(context(), key + certificate), /the key is not the certificate's/);
  assert.throws(() => loadX509Authority(context(), key), /missing/);
  assert.throws(() => loadX509Authority(context(), "nonsense"), /cannot be used/);
});
