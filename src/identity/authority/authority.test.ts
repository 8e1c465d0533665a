import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId, parseTrustDomain } from "../../core/spiffe/id.ts";
import { verifyJwtSvid } from "../../core/spiffe/jwt-svid.ts";
import { verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { memoryKeyStore } from "../../io/keys.ts";
import { memoryStateFile } from "../../io/state-file.ts";
import { Authority } from "./authority.ts";
import { RecordingJournal, testSigner } from "./fixture.ts";

const trustDomain = parseTrustDomain("example.com");
const id = parseSpiffeId("spiffe://example.com/ns/a/sa/b");
const spki = (): Uint8Array =>
  generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "der", type: "spki" });

const settle = async (authority: Authority): Promise<void> => {
  await authority.x509.settled();
  await authority.jwt.settled();
};

test("an SVID verifies against the bundle, and the journal knows it", async (t) => {
  const clock = new FakeClock();
  const journal = new RecordingJournal();
  const authority = await Authority.open({
    trustDomain,
    signer: await testSigner(t, { clock }),
    kept: memoryStateFile(),
    journal,
    clock,
  });
  const svid = await authority.issueX509Svid({
    publicKey: { spki: spki() },
    spiffeId: id,
    entryId: "e1",
    dnsNames: ["b.a"],
  });
  const verified = verifyX509Svid(svid.chain, () => authority.bundle.value, clock.now());
  assert.ok(verified.ok, JSON.stringify(verified));
  assert.equal(verified.id, id);
  assert.equal(verified.serial, svid.serial);
  assert.equal(new X509Certificate(svid.chain[0] as Uint8Array).serialNumber.toLowerCase(), svid.serial);
  assert.equal(verified.notAfterMs, clock.now() + 3_600_000);
  assert.deepEqual(Buffer.from(journal.records.get(svid.serial) ?? []), Buffer.from(svid.chain[0] ?? []));
  assert.deepEqual(
    journal.intents.map((intent) => [intent.kind, intent.entryId]),
    [
      ["x509-ca", "authority"],
      ["x509-svid", "e1"],
    ],
  );
  await authority.close();
});

test("a JWT-SVID verifies for its audience alone", async (t) => {
  const clock = new FakeClock();
  const authority = await Authority.open({
    trustDomain,
    signer: await testSigner(t, { clock }),
    kept: memoryStateFile(),
    journal: new RecordingJournal(),
    clock,
  });
  const svid = await authority.issueJwtSvid({ spiffeId: id, audiences: ["shop"], entryId: "e1" });
  const verify = (audience: string, at: number) =>
    verifyJwtSvid(svid.token, () => authority.bundle.value, audience, at);
  const verified = verify("shop", clock.now());
  assert.ok(verified.ok, JSON.stringify(verified));
  assert.equal(verified.expiresAtMs, clock.now() + 300_000);
  assert.equal(svid.keyId, verified.keyId);
  const other = verify("bank", clock.now());
  assert.equal(other.ok ? "" : other.reason, "wrong-audience");
  const late = verify("shop", clock.now() + 300_000);
  assert.equal(late.ok ? "" : late.reason, "expired");
  await authority.close();
});

test("authorities rotate while SVIDs of seconds are issued, and every live SVID verifies at every moment", async (t) => {
  const clock = new FakeClock();
  const journal = new RecordingJournal();
  const keys = memoryKeyStore();
  const signer = await testSigner(t, { clock, keys });
  const lives = { caTtlMs: 60_000, x509SvidTtlMs: 4_000 };
  const options = { trustDomain, signer, kept: memoryStateFile(), journal, clock, ...lives };
  const authority = await Authority.open(options);
  const live: { chain: readonly Uint8Array[]; notAfterMs: number }[] = [];
  const signers = new Set<string>();
  const key = spki();
  let sequence = authority.bundle.value.sequence;
  for (let second = 0; second < 180; second++) {
    const svid = await authority.issueX509Svid({ publicKey: { spki: key }, spiffeId: id, entryId: "e1" });
    signers.add(svid.authorityId);
    live.push(svid);
    clock.advance(1_000);
    await settle(authority);
    const bundle = authority.bundle.value;
    assert.ok(bundle.sequence >= sequence);
    sequence = bundle.sequence;
    assert.ok(bundle.x509Authorities.length >= 1 && bundle.x509Authorities.length <= 3);
    for (const { chain, notAfterMs } of live.filter((candidate) => candidate.notAfterMs >= clock.now())) {
      const verified = verifyX509Svid(chain, () => bundle, clock.now());
      assert.ok(verified.ok, `${second}s, until ${notAfterMs}: ${JSON.stringify(verified)}`);
    }
  }
  assert.ok(signers.size >= 6, "a CA of 60 s is followed by the next after 30 s");
  assert.deepEqual((await keys.list()).length, authority.x509.slots.length + authority.jwt.slots.length);
  await authority.close();
});

test("what was kept is used after a restart", async (t) => {
  const clock = new FakeClock();
  const keys = memoryKeyStore();
  const open = async () => {
    const signer = await testSigner(t, { clock, keys });
    return Authority.open({ trustDomain, signer, kept, journal: new RecordingJournal(), clock });
  };
  const kept = memoryStateFile();
  const first = await open();
  await first.x509.prepare();
  const svid = await first.issueX509Svid({ publicKey: { spki: spki() }, spiffeId: id, entryId: "e1" });
  await first.close();
  await keys.write("x509-00.pem", (await keys.read(`jwt-${first.jwt.active().id}.pem`)) ?? new Uint8Array());
  const second = await open();
  assert.equal(second.x509.active().id, first.x509.active().id);
  assert.equal(second.x509.slots.length, 2);
  assert.equal(second.bundle.value.sequence, first.bundle.value.sequence);
  assert.ok(verifyX509Svid(svid.chain, () => second.bundle.value, clock.now()).ok);
  assert.equal(await keys.read("x509-00.pem"), null);
  await second.close();
});
