import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { serverId } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { memoryStateFile } from "../../io/state-file.ts";
import { Authority } from "../authority/authority.ts";
import { RecordingJournal, testSigner } from "../authority/fixture.ts";
import { trustDomain } from "./fixture.ts";
import { keepServerSvid } from "./server-svid.ts";

const HOUR = 3_600_000;

async function setUp(t: TestContext) {
  const clock = new FakeClock();
  const journal = new RecordingJournal();
  const authority = await Authority.open({
    trustDomain,
    signer: await testSigner(t, { clock }),
    kept: memoryStateFile(),
    journal,
    clock,
  });
  const errors: unknown[] = [];
  const { bundle } = authority;
  const kept = await keepServerSvid({ authority, trustDomain, bundle, clock, onError: (error) => errors.push(error) });
  const next = () => new Promise<X509Svid>((resolve) => void kept.svid.watch(resolve));
  return { clock, journal, authority, errors, kept, next };
}

test("the server's certificate is renewed at half of its life, with a new key", async (t) => {
  const { clock, kept, next } = await setUp(t);
  const first = kept.svid.value;
  assert.equal(first.id, serverId(trustDomain));
  const renewed = next();
  clock.advance(HOUR / 2 - 1);
  assert.equal(kept.svid.value, first);
  clock.advance(1);
  const second = await renewed;
  assert.ok(second.notAfter > first.notAfter);
  assert.notDeepEqual(second.keyDer, first.keyDer);
  kept.stop();
});

test("where it cannot be renewed it stays, is tried again, and said", async (t) => {
  const { clock, journal, errors, kept, next } = await setUp(t);
  const first = kept.svid.value;
  journal.failNext = true;
  clock.advance(HOUR / 2);
  await new Promise(setImmediate);
  assert.equal(errors.length, 1);
  assert.equal(kept.svid.value, first);
  const renewed = next();
  clock.advance(1_000);
  assert.notEqual((await renewed).serial, first.serial);
  kept.stop();
});

test("once stopped it is not renewed any more", async (t) => {
  const { clock, journal, kept } = await setUp(t);
  const before = journal.intents.length;
  kept.stop();
  clock.advance(HOUR);
  await new Promise(setImmediate);
  assert.equal(journal.intents.filter(({ entryId }) => entryId === "server").length, 1);
  assert.ok(journal.intents.length >= before);
});

test("where the authority that signed it is tainted, it is replaced at once, by one that the next signed", async (t) => {
  const { authority, clock, kept, next } = await setUp(t);
  const { x509 } = authority;
  const old = x509.active().id;
  await x509.activate((await x509.prepare()).id);
  const first = kept.svid.value;
  const renewed = next();
  await x509.taint(old);
  clock.advance(0);
  const { chain } = await renewed;
  assert.equal(parseCertificate(chain[0] as Uint8Array).authorityKeyId, x509.active().id);
  assert.notDeepEqual(chain, first.chain);
  kept.stop();
});
