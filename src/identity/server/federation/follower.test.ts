import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { EveryhopError } from "../../../core/base/errors.ts";
import { type Bundle, emptyBundle } from "../../../core/spiffe/bundle.ts";
import type { Relationship } from "../../../core/spiffe/federation.ts";
import { parseTrustDomain } from "../../../core/spiffe/id.ts";
import { silentLog } from "../../../io/log.ts";
import { testServer } from "../fixture.ts";
import { currentCa, other } from "./fixture.ts";
import { Follower } from "./follower.ts";

const third = parseTrustDomain("third.org");
const root = currentCa("their root");
const MINUTE = 60_000;
const to = (trustDomain: Relationship["trustDomain"], path = ""): Relationship => ({
  trustDomain,
  url: `https://bundles.${trustDomain}/${path}`,
  profile: { kind: "https_web" },
});
const bundleOf = (trustDomain: Bundle["trustDomain"], part: Partial<Bundle> = {}): Bundle => ({
  ...emptyBundle(trustDomain),
  x509Authorities: [root.der],
  sequence: 1n,
  ...part,
});

/** A follower whose endpoints answer what `answers` says at that moment, on a fake clock. */
async function following(t: TestContext) {
  const { identity, clock } = await testServer(t);
  const asked: string[] = [];
  const answers = new Map<string, Bundle | Error>();
  const follower = new Follower({
    bundles: identity.bundles,
    clock,
    log: silentLog,
    fetch: async ({ url, trustDomain }) => {
      asked.push(url);
      const answer = answers.get(trustDomain) ?? new EveryhopError("unavailable", "away");
      if (answer instanceof Error) {
        throw answer;
      }
      return answer;
    },
  });
  t.after(() => follower.close());
  const advance = async (ms: number) => {
    clock.advance(ms);
    await follower.settled();
  };
  return { bundles: identity.bundles, follower, asked, answers, advance };
}

test("Federation §4.1: polled at once, then at the bundle's own hint; five minutes where it has none, a minute at least", async (t) => {
  const { bundles, follower, asked, answers, advance } = await following(t);
  answers.set(other, bundleOf(other, { refreshHintMs: 2 * MINUTE }));
  follower.follow([to(other)]);
  await advance(0);
  assert.equal(bundles.federatedWith(other)?.sequence, 1n);
  assert.ok((follower.stateOf(other)?.refreshedAtMs ?? 0) > 0);
  await advance(2 * MINUTE - 1);
  assert.equal(asked.length, 1);
  answers.set(other, bundleOf(other, { sequence: 2n }));
  await advance(1);
  assert.equal(bundles.federatedWith(other)?.sequence, 2n);
  await advance(5 * MINUTE - 1);
  assert.equal(asked.length, 2);
  answers.set(other, bundleOf(other, { sequence: 3n, refreshHintMs: 1_000 }));
  await advance(1);
  await advance(MINUTE - 1);
  assert.equal(asked.length, 3);
  await advance(1);
  assert.equal(asked.length, 4);
});

test("Federation §6.2: a failure waits for the next poll, and takes nothing away", async (t) => {
  const { bundles, follower, asked, answers, advance } = await following(t);
  answers.set(other, bundleOf(other, { refreshHintMs: 2 * MINUTE }));
  follower.follow([to(other)]);
  await advance(0);
  answers.set(other, new EveryhopError("unavailable", "refused"));
  await advance(2 * MINUTE);
  assert.deepEqual([asked.length, follower.stateOf(other)?.problem], [2, "refused"]);
  assert.deepEqual([...follower.states()], [[other, false]]);
  assert.equal(bundles.federatedWith(other)?.x509Authorities.length, 1);
  await advance(2 * MINUTE - 1);
  assert.equal(asked.length, 2);
  await advance(1);
  assert.equal(asked.length, 3);
});

test("Federation §4.2: bundles of different trust domains stay apart, whatever the endpoints serve", async (t) => {
  const { bundles, follower, answers, advance } = await following(t);
  const theirs = currentCa("third root");
  answers.set(other, bundleOf(other));
  answers.set(third, bundleOf(third, { x509Authorities: [theirs.der] }));
  follower.follow([to(other), to(third)]);
  await advance(0);
  const ders = (trustDomain: typeof other) => bundles.federatedWith(trustDomain)?.x509Authorities.map(Buffer.from);
  assert.deepEqual(ders(other), [Buffer.from(root.der)]);
  assert.deepEqual(ders(third), [Buffer.from(theirs.der)]);
  assert.equal(bundles.own.value.x509Authorities.length, 1);
});

test("a relationship that is changed is polled anew, one that is taken out no more; its bundle stays", async (t) => {
  const { bundles, follower, asked, answers, advance } = await following(t);
  answers.set(other, bundleOf(other));
  follower.follow([to(other), to(third)]);
  await advance(0);
  follower.follow([to(other, "elsewhere")]);
  await advance(0);
  assert.deepEqual(asked, [
    "https://bundles.other.org/",
    "https://bundles.third.org/",
    "https://bundles.other.org/elsewhere",
  ]);
  follower.follow([]);
  await advance(60 * MINUTE);
  assert.equal(asked.length, 3);
  assert.equal(bundles.federatedWith(other)?.x509Authorities.length, 1);
});

test("asked to refresh, it polls now, and says how that went", async (t) => {
  const { bundles, follower, answers, advance } = await following(t);
  follower.follow([to(other)]);
  await advance(0);
  await assert.rejects(follower.refresh(other), /away/);
  answers.set(other, bundleOf(other, { sequence: 7n }));
  await follower.refresh(other);
  assert.equal(bundles.federatedWith(other)?.sequence, 7n);
  await assert.rejects(follower.refresh(third), /no relationship with trust domain "third.org"/);
});
