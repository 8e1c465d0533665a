/** A server that ends at any point of a rotation comes back to a state in which everything that was handed out is believed. */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId, parseTrustDomain } from "../../core/spiffe/id.ts";
import { verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { memoryStateFile, type StateFile } from "../../io/state-file.ts";
import type { SigningService } from "../intent/service.ts";
import { Authority } from "./authority.ts";
import { RecordingJournal, testSigner } from "./fixture.ts";

const trustDomain = parseTrustDomain("example.com");
const id = parseSpiffeId("spiffe://example.com/ns/a/sa/b");
const spki = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "der", type: "spki" });

/** Lets so many effects through; the next one is done or not, and whoever asked never hears of it, nor of anything after. */
class Power {
  #left: number;
  readonly #done: boolean;

  constructor(left: number, done: boolean) {
    this.#left = left;
    this.#done = done;
  }

  get out(): boolean {
    return this.#left < 0;
  }

  async run<T>(effect: () => Promise<T>): Promise<T> {
    this.#left--;
    if (this.#left >= 0) {
      return effect();
    }
    if (this.#left === -1 && this.#done) {
      await effect();
    }
    throw new Error("the power is out");
  }
}

const poweredFile = (file: StateFile, power: Power): StateFile => ({
  read: () => file.read(),
  write: (bytes) => power.run(() => file.write(bytes)),
});

const poweredSigner = (signer: SigningService, power: Power): SigningService => ({
  ...signer,
  durable: signer.durable,
  keys: signer.keys,
  prepare: (intent) => signer.prepare(intent),
  log: (after) => signer.log(after),
  createKey: (use, type) => power.run(() => signer.createKey(use, type)),
  sign: (permit) => power.run(() => signer.sign(permit)),
  adopt: (key, chain) => power.run(() => signer.adopt(key, chain)),
  discard: (use, key) => power.run(() => signer.discard(use, key)),
});

/** What an operator does, and what is handed out meanwhile, until the power goes. */
async function work(authority: Authority, handedOut: (readonly Uint8Array[])[], revoked: Set<string>): Promise<void> {
  const issue = async () => {
    const svid = await authority.issueX509Svid({ publicKey: { spki }, spiffeId: id, entryId: "e" });
    handedOut.push(svid.chain);
  };
  await issue();
  const old = authority.x509.active().id;
  const { id: next } = await authority.x509.prepare();
  await authority.x509.activate(next);
  await issue();
  await authority.x509.taint(old);
  revoked.add(old);
  await authority.x509.revoke(old);
  await authority.jwt.activate((await authority.jwt.prepare()).id);
  await issue();
}

test("the power may go out at any point of a rotation, with the last effect done or not", async (t) => {
  const clock = new FakeClock();
  let points = 0;
  for (let left = 0, ended = false; !ended; left++) {
    for (const done of [false, true]) {
      const [signer, file, journal] = [await testSigner(t, { clock }), memoryStateFile(), new RecordingJournal()];
      const power = new Power(left, done);
      const handedOut: (readonly Uint8Array[])[] = [];
      const revoked = new Set<string>();
      const shared = { trustDomain, journal, clock };
      let sequence = 0n;
      try {
        const kept = poweredFile(file, power);
        const authority = await Authority.open({ ...shared, signer: poweredSigner(signer, power), kept });
        authority.bundle.watch((bundle) => {
          sequence = bundle.sequence;
        });
        await work(authority, handedOut, revoked);
        authority.x509.stop();
        authority.jwt.stop();
      } catch (error) {
        assert.match(String(error), /the power is out/);
      }
      ended = !power.out;
      points++;
      const again = await Authority.open({ ...shared, signer, kept: file });
      const what = `after ${left} effects, the next ${done ? "done" : "not done"}`;
      const { slots } = again.x509;
      assert.equal(slots.filter(({ state }) => state === "active").length, 1, what);
      assert.ok(again.bundle.value.sequence >= sequence, `${what}: the bundle counts on`);
      for (const chain of handedOut) {
        const verified = verifyX509Svid(chain, () => again.bundle.value, clock.now());
        const byRevoked = revoked.size > 0 && chain === handedOut[0];
        assert.ok(verified.ok || byRevoked, `${what}: ${JSON.stringify(verified)}`);
      }
      const named = [...slots, ...again.jwt.slots].map(({ authority }) => authority.id).sort();
      assert.deepEqual([...signer.keys.value.keys()].sort(), named, `${what}: no key is missing, and none is astray`);
      await again.issueX509Svid({ publicKey: { spki }, spiffeId: id, entryId: "e" });
      await again.close();
    }
  }
  t.diagnostic(`${points} points`);
  assert.ok(points > 30);
});
