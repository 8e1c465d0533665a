/** What every store must do: the same tests run on each database. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EveryhopError } from "../../core/base/errors.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { parseSelector } from "../../core/entries/selector.ts";
import { parseSpiffeId, parseTrustDomain, type SpiffeId } from "../../core/spiffe/id.ts";
import type { IssuanceIntent, NodeRecord, Store, StoreEvent } from "./store.ts";

/** A fresh store, and the same one opened again (after a crash where `crash`). */
export interface StoreUnderTest {
  store: Store;
  reopen(): Promise<Store>;
  end(): Promise<void>;
}

export const hasCode = (code: string) => (error: unknown) => error instanceof EveryhopError && error.code === code;
const id = (path: string): SpiffeId => parseSpiffeId(`spiffe://example.com${path}`);

export function anEntry(change: Partial<RegistrationEntry> = {}): RegistrationEntry {
  return {
    id: "e1",
    spiffeId: id("/ns/a/sa/web"),
    parentId: id("/spire/agent/join_token/t"),
    selectors: [parseSelector("unix:path:/bin/a:b"), parseSelector("unix:uid:1")],
    x509SvidTtlMs: 0,
    jwtSvidTtlMs: 60_000,
    federatesWith: [parseTrustDomain("other.org")],
    admin: true,
    downstream: false,
    expiresAtMs: null,
    dnsNames: ["web.example.com"],
    revision: 0,
    storeSvid: false,
    hint: "main",
    createdAtMs: 1_900_000_000_000,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: true,
    labels: { team: "shop" },
    ...change,
  };
}

export function anIntent(serial: string, change: Partial<IssuanceIntent> = {}): IssuanceIntent {
  return {
    serial,
    kind: "x509-svid",
    spiffeId: id("/ns/a/sa/web"),
    entryId: "e1",
    authorityId: "ca1",
    notBeforeMs: 1_000,
    notAfterMs: 5_000,
    dnsNames: ["a.example"],
    audiences: [],
    digest: "00ff",
    ...change,
  };
}

export function aNode(change: Partial<NodeRecord> = {}): NodeRecord {
  return {
    id: id("/spire/agent/join_token/t"),
    attestationType: "join_token",
    serial: "0a",
    expiresAt: 9_000,
    next: null,
    banned: false,
    canReattest: false,
    selectors: [parseSelector("spiffe_id:x")],
    agentVersion: "1.15.0",
    ...change,
  };
}

/** Runs the contract on the stores that `make` gives. */
export function storeContract(name: string, make: () => Promise<StoreUnderTest>): void {
  const on = (what: string, body: (under: StoreUnderTest) => Promise<void>) =>
    test(`${name}: ${what}`, async () => {
      const under = await make();
      try {
        await body(under);
      } finally {
        await under.end();
      }
    });
  entryTests(on);
  nodeTests(on);
  issuanceTests(on);
  otherTests(on);
}

/** What a store that was made by testdata/schema-1.sql has to say: nothing of it is lost on the way to this version. */
export async function assertOldest(store: Store): Promise<void> {
  assert.deepEqual(await store.entries.all(), [anEntry({ labels: {} })]);
  assert.deepEqual(await store.nodes.all(), [aNode({ agentVersion: "", next: { serial: "0c", expiresAt: 10_000 } })]);
  assert.deepEqual(await store.joinTokens.take("secret", "mine"), { expiresAt: 5_000 });
  const issued = Buffer.from([1, 2, 3]);
  assert.deepEqual(await store.issuance.get("01"), { ...anIntent("01"), intendedAtMs: 900, issued });
  assert.deepEqual(await store.kills.all(), [{ order: "o1", spiffeId: id("/bad"), since: 7 }]);
  assert.equal((await store.bundles.all())[0]?.sequence, 3);
  assert.equal(store.revision, 4);
  // And it goes on from there.
  await store.issuance.intend([anIntent("03")], 901);
  assert.deepEqual(
    (await store.issuance.list({ after: 1, limit: 9 })).records.map(({ serial }) => serial),
    ["02", "03"],
  );
  await store.entries.delete("e1");
  assert.equal(store.revision, 5);
}

type On = (what: string, body: (under: StoreUnderTest) => Promise<void>) => void;

function entryTests(on: On): void {
  on("an entry comes back as it went in, also after a restart", async (under) => {
    const entry = anEntry();
    assert.deepEqual(await under.store.entries.create(entry), { created: true, entry });
    assert.deepEqual(await (await under.reopen()).entries.all(), [entry]);
  });

  on("a similar entry is answered with the one that is there, whatever the order of selectors", async ({ store }) => {
    const entry = anEntry();
    await store.entries.create(entry);
    const similar = anEntry({ id: "e2", selectors: [...entry.selectors].reverse(), hint: "other" });
    assert.deepEqual(await store.entries.create(similar), { created: false, entry });
    await assert.rejects(store.entries.create(anEntry({ hint: "x", spiffeId: id("/z") })), hasCode("already-exists"));
  });

  on("update is read and written in one transaction", async ({ store }) => {
    await store.entries.create(anEntry());
    const bump = (entry: RegistrationEntry): RegistrationEntry => ({ ...entry, revision: entry.revision + 1 });
    await Promise.all(Array.from({ length: 20 }, () => store.entries.update("e1", bump)));
    assert.equal((await store.entries.all())[0]?.revision, 20);
    await assert.rejects(store.entries.update("nope", bump), hasCode("not-found"));
  });

  on("an update cannot make two entries similar, and a failed one changes and tells nothing", async ({ store }) => {
    await store.entries.create(anEntry());
    await store.entries.create(anEntry({ id: "e2", spiffeId: id("/b") }));
    const told: StoreEvent[] = [];
    store.watch((event) => told.push(event));
    const toFirst = store.entries.update("e2", (entry) => ({ ...entry, spiffeId: id("/ns/a/sa/web") }));
    await assert.rejects(toFirst, hasCode("already-exists"));
    assert.deepEqual(told, []);
    assert.equal((await store.entries.all())[1]?.spiffeId, id("/b"));
  });

  on("watchers hear of each write in order, before its promise resolves", async (under) => {
    const heard: string[] = [];
    const before = under.store.revision;
    const end = under.store.watch((event) => heard.push(toldOf(event, before)));
    await under.store.entries.create(anEntry());
    assert.deepEqual(heard, ["1 entry e1"]);
    await Promise.all([under.store.entries.delete("e1"), under.store.nodes.attested(aNode())]);
    assert.equal(await under.store.entries.delete("e1"), false);
    assert.deepEqual(heard.slice(1), ["2 entry e1", `3 node ${aNode().id}`]);
    end();
    await under.store.nodes.delete(aNode().id);
    assert.equal(heard.length, 3);
    assert.equal((await under.reopen()).revision, before + 4);
  });
}

/** A change in a line, its number counted from `before`. */
export function toldOf(event: StoreEvent, before = 0): string {
  return event.kind === "replaced" ? "replaced" : `${event.revision - before} ${event.kind} ${event.id}`;
}

function nodeTests(on: On): void {
  on("a node comes back as it went in; attesting again replaces it", async (under) => {
    await under.store.nodes.attested(aNode());
    const again = aNode({ serial: "0b", next: { serial: "0c", expiresAt: 10_000 }, selectors: [] });
    await under.store.nodes.attested(again);
    assert.deepEqual(await (await under.reopen()).nodes.get(again.id), again);
  });

  on("of any number who attest as the first of an id, one does", async ({ store }) => {
    const racing = Array.from({ length: 8 }, () => store.nodes.attested(aNode(), { first: true }));
    const results = await Promise.allSettled(racing);
    assert.equal(results.filter(({ status }) => status === "fulfilled").length, 1);
    await assert.rejects(store.nodes.attested(aNode(), { first: true }), hasCode("permission-denied"));
    await store.nodes.attested(aNode());
  });

  on("a banned node cannot attest until it is deleted", async ({ store }) => {
    await store.nodes.attested(aNode());
    await store.nodes.update(aNode().id, (node) => ({ ...node, serial: "", banned: true }));
    await assert.rejects(store.nodes.attested(aNode()), hasCode("permission-denied"));
    assert.equal(await store.nodes.delete(aNode().id), true);
    await store.nodes.attested(aNode());
    assert.equal(await store.nodes.update(id("/nope"), (node) => node), null);
  });
}

function issuanceTests(on: On): void {
  on("a serial is intended once, and signed once", async ({ store: { issuance } }) => {
    await issuance.intend([anIntent("01"), anIntent("02")], 900);
    await assert.rejects(issuance.intend([anIntent("03"), anIntent("02")], 900), hasCode("already-exists"));
    assert.equal(await issuance.get("03"), null, "all or none");
    const issued = Buffer.from([1, 2, 3]);
    await issuance.record([{ serial: "01", issued }]);
    await assert.rejects(issuance.record([{ serial: "01", issued }]), hasCode("already-exists"));
    await assert.rejects(
      issuance.record([
        { serial: "02", issued },
        { serial: "09", issued },
      ]),
      hasCode("not-found"),
    );
    assert.deepEqual(await issuance.get("01"), { ...anIntent("01"), intendedAtMs: 900, issued });
    assert.equal((await issuance.get("02"))?.issued, null, "all or none");
    assert.deepEqual(await issuance.count(), { issued: 1, unfinished: 1 });
  });

  on("the journal is paged in order of intent, also after a restart", async (under) => {
    const serials = Array.from({ length: 1_200 }, (_, index) => `a${index}`);
    await under.store.issuance.intend(
      serials.map((serial) => anIntent(serial)),
      1,
    );
    const { issuance } = await under.reopen();
    await issuance.intend([anIntent("z")], 2);
    const seen: string[] = [];
    let after: number | null = 0;
    while (after !== null) {
      const page = await issuance.list({ after, limit: 400 });
      seen.push(...page.records.map(({ serial }) => serial));
      after = page.next;
    }
    assert.deepEqual(seen, [...serials, "z"]);
  });

  on("live is what was signed and has not expired; what expired can be forgotten", async ({ store: { issuance } }) => {
    const longer = { notAfterMs: 9_000 };
    await issuance.intend([anIntent("01"), anIntent("02", longer), anIntent("03", longer)], 1);
    await issuance.record(["01", "02"].map((serial) => ({ serial, issued: Buffer.from(serial) })));
    const live = await issuance.list({ liveAt: 6_000, limit: 10 });
    assert.deepEqual(
      live.records.map(({ serial }) => serial),
      ["02"],
    );
    assert.equal(await issuance.prune(6_000), 1);
    assert.deepEqual(await issuance.count(), { issued: 1, unfinished: 1 });
  });
}

function otherTests(on: On): void {
  on("twenty take one join token: one gets it", async ({ store: { joinTokens } }) => {
    await joinTokens.create("secret", 5_000);
    await assert.rejects(joinTokens.create("secret", 6_000), hasCode("already-exists"));
    const claims = Array.from({ length: 20 }, (_, index) => `claim ${index}`);
    const takes = await Promise.all(claims.map((claim) => joinTokens.take("secret", claim)));
    const winners = claims.filter((_, index) => takes[index] !== null);
    assert.equal(winners.length, 1);
    assert.deepEqual(
      await joinTokens.take("secret", winners[0] ?? ""),
      { expiresAt: 5_000 },
      "the winner may ask again",
    );
    assert.equal(await joinTokens.take("secret", "later"), null);
    await joinTokens.create("secret", 7_000);
    assert.deepEqual(await joinTokens.take("secret", "of another agent"), { expiresAt: 7_000 });
    await joinTokens.create("old", 1_000);
    assert.equal(await joinTokens.prune(2_000), 1);
  });

  on("a kill stays until it is taken back, and keeps its first order", async (under) => {
    const kill = { order: "o1", spiffeId: id("/bad"), since: 7 };
    assert.deepEqual(await under.store.kills.add(kill), kill);
    assert.deepEqual(await under.store.kills.add({ ...kill, order: "o2" }), kill);
    const { kills } = await under.reopen();
    assert.deepEqual(await kills.all(), [kill]);
    assert.deepEqual(await kills.remove(kill.spiffeId), kill);
    assert.equal(await kills.remove(kill.spiffeId), null);
  });

  on("a snapshot has everything, and the number of the last change in it", async ({ store }) => {
    await store.entries.create(anEntry());
    await store.nodes.attested(aNode());
    const kill = await store.kills.add({ order: "o1", spiffeId: id("/bad"), since: 7 });
    const { revision } = store;
    const records = { entries: [anEntry()], nodes: [aNode()], kills: [kill], bundles: [], relationships: [] };
    assert.deepEqual(await store.snapshot(), { revision, ...records });
  });

  on("relationships come back as they went in; a change that throws changes and tells nothing", async (under) => {
    const trustDomain = parseTrustDomain("other.org");
    const web = { trustDomain, url: "https://other.org/", endpointSpiffeId: null };
    const spiffe = { ...web, endpointSpiffeId: id("/spire/server") };
    const heard: string[] = [];
    under.store.watch((event) => heard.push(toldOf(event)));
    await under.store.relationships.put(trustDomain, (current) => {
      assert.equal(current, null);
      return web;
    });
    const refused = new EveryhopError("already-exists", "it is there");
    const again = under.store.relationships.put(trustDomain, () => {
      throw refused;
    });
    await assert.rejects(again, hasCode("already-exists"));
    assert.equal(heard.length, 1);
    await under.store.relationships.put(trustDomain, () => spiffe);
    const store = await under.reopen();
    assert.deepEqual(await store.relationships.all(), [spiffe]);
    assert.equal(await store.relationships.delete(trustDomain), true);
    assert.equal(await store.relationships.delete(trustDomain), false);
    assert.deepEqual((await store.snapshot()).relationships, []);
  });

  on("bundles come back as they went in", async (under) => {
    const trustDomain = parseTrustDomain("other.org");
    const bundle = { trustDomain, sequence: 3, document: "{}" };
    await under.store.bundles.put(trustDomain, () => bundle);
    let told = 0;
    under.store.watch(() => told++);
    await under.store.bundles.put(trustDomain, (current) => current ?? bundle);
    assert.equal(told, 0, "unchanged is not told");
    const store = await under.reopen();
    assert.deepEqual(await store.bundles.all(), [bundle]);
    assert.equal(await store.bundles.delete(trustDomain), true);
    assert.equal(await store.bundles.get(trustDomain), null);
  });
}
