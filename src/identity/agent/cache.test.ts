import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { parseSelector } from "../../core/entries/selector.ts";
import { emptyBundle } from "../../core/spiffe/bundle.ts";
import { parseSpiffeId, parseTrustDomain } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { IdentityCache } from "./cache.ts";

const TD = parseTrustDomain("example.com");

function entry(id: string, selectors: readonly string[], more: Partial<RegistrationEntry> = {}): RegistrationEntry {
  return {
    id,
    spiffeId: parseSpiffeId(`spiffe://example.com/${id}`),
    parentId: parseSpiffeId("spiffe://example.com/spire/agent/x"),
    selectors: selectors.map(parseSelector),
    x509SvidTtlMs: 0,
    jwtSvidTtlMs: 0,
    federatesWith: [],
    admin: false,
    downstream: false,
    expiresAtMs: null,
    dnsNames: [],
    revision: 0,
    storeSvid: false,
    hint: "",
    createdAtMs: 0,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
    labels: {},
    ...more,
  };
}

function harness() {
  const clock = new FakeClock();
  const cache = new IdentityCache(TD, clock);
  const sign = (one: RegistrationEntry, lifeMs = 60_000) => {
    const svid: X509Svid = {
      id: one.spiffeId,
      chain: [],
      keyDer: new Uint8Array(),
      serial: `${one.id}-${clock.now()}`,
      notBefore: clock.now(),
      notAfter: clock.now() + lifeMs,
      hint: "",
    };
    const renewAtMs = clock.now() + lifeMs / 2;
    cache.setSvids(new Map([[one.id, { svid, revision: one.revision, renewAtMs }]]), new Map());
  };
  const ids = (...selectors: string[]) =>
    cache.entitlement(selectors.map(parseSelector)).identities.map(({ entry: { id } }) => id);
  return { clock, cache, sign, ids };
}

test("a workload is entitled to what all its entry's selectors are found for", () => {
  const { cache, sign, ids } = harness();
  const both = entry("both", ["unix:uid:1", "unix:path:/a"]);
  const one = entry("one", ["unix:uid:1"], { createdAtMs: 5 });
  cache.setEntries([one, both]);
  sign(both);
  sign(one);
  assert.deepEqual(ids("unix:uid:1", "unix:path:/a", "unix:gid:7"), ["both", "one"]);
  assert.deepEqual(ids("unix:uid:1"), ["one"]);
  assert.deepEqual(ids("unix:path:/a"), []);
  assert.deepEqual(ids(), []);
});

test("an entry for a store is no workload's", () => {
  const { cache, sign, ids } = harness();
  const stored = entry("stored", ["unix:uid:1"], { storeSvid: true });
  cache.setEntries([stored]);
  sign(stored);
  assert.deepEqual(ids("unix:uid:1"), []);
});

test("entries that match and have no SVID yet are missing, with the reason where there is one", () => {
  const { cache } = harness();
  cache.setEntries([entry("a", ["unix:uid:1"]), entry("b", ["unix:uid:1"])]);
  cache.setSvids(new Map(), new Map([["b", "refused"]]));
  const { missing } = cache.entitlement([parseSelector("unix:uid:1")]);
  assert.deepEqual(
    missing.map(({ entry: { id }, failure }) => [id, failure]),
    [
      ["a", null],
      ["b", "refused"],
    ],
  );
});

test("watchers hear of changes alone", () => {
  const { cache, sign } = harness();
  const one = entry("one", ["unix:uid:1"]);
  cache.setEntries([one]);
  const before = cache.changed.value;
  cache.setEntries([{ ...one }]);
  cache.setBundle(emptyBundle(TD));
  assert.equal(cache.changed.value, before);
  cache.setBundle({ ...emptyBundle(TD), x509Authorities: [Uint8Array.of(1)] });
  sign(one);
  assert.equal(cache.changed.value, before + 2);
});

test("what is gone, renamed or late is not handed out", () => {
  const { cache, sign, ids } = harness();
  const one = entry("one", ["unix:uid:1"]);
  cache.setEntries([one]);
  sign(one);
  cache.setEntries([{ ...one, spiffeId: parseSpiffeId("spiffe://example.com/other"), revision: 1 }]);
  assert.deepEqual(ids("unix:uid:1"), []);
  sign(one);
  assert.deepEqual(ids("unix:uid:1"), [], "an SVID of the old name, signed meanwhile");
  cache.setEntries([]);
  sign(one);
  assert.deepEqual([ids("unix:uid:1"), cache.svidCount], [[], 0]);
});

test("SVIDs fall due at their time, and when their entry changes; expired ones are dropped", () => {
  const { cache, sign, clock, ids } = harness();
  const one = entry("one", ["unix:uid:1"]);
  cache.setEntries([one]);
  const due = () => cache.due().map(({ id }) => id);
  assert.deepEqual(due(), ["one"]);
  sign(one);
  assert.deepEqual([due(), cache.nextAt()], [[], clock.now() + 30_000]);
  cache.setEntries([{ ...one, dnsNames: ["x"], revision: 1 }]);
  assert.deepEqual([due(), ids("unix:uid:1")], [["one"], ["one"]]);
  sign({ ...one, revision: 1 });
  clock.advance(30_000);
  assert.deepEqual(due(), ["one"]);
  clock.advance(1);
  assert.equal(cache.nextAt(), clock.now() - 1, "what fell due meanwhile is not forgotten");
  clock.advance(29_999);
  assert.deepEqual(ids("unix:uid:1"), []);
  cache.dropExpired();
  assert.equal(cache.svidCount, 0);
});

test("an SVID of which less than a quarter is left counts as overdue, until it is renewed", () => {
  const { clock, cache, sign } = harness();
  const one = entry("one", ["unix:uid:1"]);
  cache.setEntries([one]);
  sign(one, 60_000);
  clock.advance(45_000);
  assert.equal(cache.overdueCount, 0);
  clock.advance(1);
  assert.equal(cache.overdueCount, 1);
  sign(one, 60_000);
  assert.equal(cache.overdueCount, 0);
});

test("of very many entries only those asked for have SVIDs, and for a while after", () => {
  const { cache, sign, clock } = harness();
  const many = Array.from({ length: 1_500 }, (_, index) => entry(`e${index}`, [`unix:uid:${index}`]));
  let wanted = 0;
  cache.onWanted(() => wanted++);
  cache.setEntries(many);
  assert.deepEqual(cache.due(), []);
  const ask = () => cache.entitlement([parseSelector("unix:uid:7")]);
  ask();
  ask();
  assert.deepEqual([wanted, cache.due().map(({ id }) => id)], [1, ["e7"]]);
  sign(many[7] as RegistrationEntry, 3_600_000);
  clock.advance(5 * 60_000);
  assert.equal(ask().identities.length, 1);
  clock.advance(9 * 60_000);
  cache.due();
  assert.equal(cache.svidCount, 1);
  clock.advance(2 * 60_000);
  cache.due();
  assert.equal(cache.svidCount, 0);
});

test("a dear selector is needed where an entry has one that begins so", () => {
  const { cache } = harness();
  cache.setEntries([entry("a", ["unix:script:sha256:ab", "unix:uid:1"])]);
  assert.deepEqual(
    ["unix:script:", "unix:script:sha256:", "unix:sha256:", "unix:parent:sha256:", "unix:uid:", "unix:u"].map(
      cache.needed,
    ),
    [true, true, false, false, true, false],
  );
});
