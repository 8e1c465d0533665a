import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId, parseTrustDomain } from "../../core/spiffe/id.ts";
import { testCsr, testKey } from "../../core/x509/fixture.ts";
import { RecordingJournal, testSigner } from "./fixture.ts";
import { createJwtAuthority } from "./jwt-authority.ts";
import { newSerial } from "./sign.ts";
import { createX509Authority } from "./x509-authority.ts";

const trustDomain = parseTrustDomain("example.com");
const spiffeId = parseSpiffeId("spiffe://example.com/a");
const NOW = Date.UTC(2030, 0, 1, 0, 0, 0, 500);
const HOUR = 3_600_000;

async function context(t: TestContext, journal = new RecordingJournal()) {
  const clock = new FakeClock(NOW);
  return { trustDomain, journal, signer: await testSigner(t, { clock }), random: randomBytes };
}

test("the intent stands in the journal, with the digest of what will be signed, before the certificate exists", async (t) => {
  const journal = new RecordingJournal();
  const authority = await createX509Authority(await context(t, journal), "ec-p256", HOUR, NOW);
  journal.failNext = true;
  const request = { publicKey: { spki: testKey().spki }, spiffeId, ttlMs: 1000, entryId: "e" };
  await assert.rejects(authority.issue(request, NOW), /disk is full/);
  assert.equal(journal.records.size, 1, "only the CA itself");
  await authority.issue(request, NOW);
  assert.match(journal.intents[1]?.digest ?? "", /^[0-9a-f]{64}$/);
});

test("what a CA has nothing signed for", async (t) => {
  const authority = await createX509Authority(await context(t), "ec-p256", HOUR, NOW);
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
  await t.test("anything once it expired", () => assert.rejects(authority.issue(base, NOW + HOUR), /still valid/));
  await t.test("nothing outlives the CA", async () => {
    const svid = await authority.issue({ ...base, ttlMs: 2 * HOUR }, NOW);
    assert.equal(svid.notAfterMs, authority.notAfterMs);
  });
});

test("what a JWT key has nothing signed for", async (t) => {
  const journal = new RecordingJournal();
  const authority = await createJwtAuthority(await context(t, journal), "ec-p256", HOUR, NOW);
  const base = { spiffeId, audiences: ["a"], ttlMs: 60_000, entryId: "e" };
  await assert.rejects(authority.issue({ ...base, audiences: [] }, NOW), /audiences/);
  await assert.rejects(authority.issue({ ...base, audiences: [""] }, NOW), /audiences/);
  await assert.rejects(authority.issue({ ...base, audiences: Array(65).fill("a") }, NOW), /audiences/);
  await assert.rejects(authority.issue({ ...base, entryId: "" }, NOW), /registration entry/);
  const other = parseSpiffeId("spiffe://other.test/a");
  await assert.rejects(authority.issue({ ...base, spiffeId: other }, NOW), /trust domain/);
  const { token } = await authority.issue({ ...base, includeJwtId: true, issuer: "https://i.example" }, NOW);
  const claims = JSON.parse(Buffer.from(token.split(".")[1] as string, "base64url").toString());
  assert.equal(claims.jti, journal.intents[0]?.serial);
  assert.equal(claims.iss, "https://i.example");
  assert.ok(![...journal.records.values()].some((kept) => Buffer.from(kept).toString("latin1").includes(token)));
});

test("serial numbers have 16 octets, are positive, differ, and begin with the time, whatever the clock says", () => {
  for (const now of [0, NOW, NOW + 0.5, Date.UTC(4198, 0, 1)]) {
    const [one, two] = [newSerial(randomBytes, now), newSerial(randomBytes, now)];
    assert.match(one, /^[4-7][0-9a-f]{31}$/);
    assert.notEqual(one, two);
    assert.equal(one.slice(0, 12), two.slice(0, 12));
  }
  assert.ok(newSerial(randomBytes, NOW) < newSerial(randomBytes, NOW + 1));
});
