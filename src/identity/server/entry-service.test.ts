import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { emptyBundle } from "../../core/spiffe/bundle.ts";
import { parseTrustDomain } from "../../core/spiffe/id.ts";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { EntryMaskSchema, EntrySchema, type Entry as Message } from "../../gen/spire/api/types/entry_pb.js";
import { FederatesWithMatch_MatchBehavior as FederatesMatch } from "../../gen/spire/api/types/federateswith_pb.js";
import { SelectorMatch_MatchBehavior as Match } from "../../gen/spire/api/types/selector_pb.js";
import { id, type TestServer, testServer, wire, wireSelector } from "./fixture.ts";

const PARENT = id("/spire/agent/join_token/t");
const FIELDS = EntryMaskSchema.fields.map(({ localName }) => localName);

type Change = MessageInitShape<typeof EntrySchema> & { $typeName?: never };

/** An entry whose every field is set. */
function full(change: Change = {}): Message {
  return create(EntrySchema, {
    id: "e1",
    spiffeId: wire(id("/web")),
    parentId: wire(PARENT),
    selectors: [wireSelector("unix:uid:1")],
    x509SvidTtl: 60,
    jwtSvidTtl: 61,
    federatesWith: ["other.org"],
    admin: true,
    downstream: true,
    expiresAt: 4_000_000_000n,
    dnsNames: ["a.example"],
    storeSvid: true,
    hint: "first",
    additionalAttributes: { disableX509SvidPrefetch: true },
    labels: { team: "shop" },
    ...change,
  });
}

async function withOther(server: TestServer): Promise<void> {
  for (const name of ["other.org", "third.org"]) {
    const trustDomain = parseTrustDomain(name);
    await server.identity.bundles.set(trustDomain, () => emptyBundle(trustDomain));
  }
}

test("an entry comes back whole, and with each mask bit its own field alone", async (t) => {
  const server = await testServer(t);
  await withOther(server);
  const entries = server.local(Entry);
  const { results } = await entries.batchCreateEntry({ entries: [full()] });
  assert.equal(results[0]?.status?.code, status.OK);
  const whole = await entries.getEntry({ id: "e1" });
  assert.deepEqual({ ...whole, createdAt: 0n }, { ...full(), createdAt: 0n });
  assert.ok(whole.createdAt > 0n);
  const nothing = create(EntrySchema, { id: "e1" });
  for (const field of FIELDS) {
    const masked = await entries.getEntry({ id: "e1", outputMask: create(EntryMaskSchema, { [field]: true }) });
    assert.deepEqual(masked, { ...nothing, [field]: whole[field as keyof Message] }, field);
  }
  assert.deepEqual(await entries.getEntry({ id: "e1", outputMask: {} }), nothing);
});

test("an update changes what each mask bit names, and nothing else", async (t) => {
  const server = await testServer(t);
  await withOther(server);
  const entries = server.local(Entry);
  await entries.batchCreateEntry({ entries: [full()] });
  const other = full({
    spiffeId: wire(id("/db")),
    parentId: wire(id("/node")),
    selectors: [wireSelector("unix:uid:2")],
    x509SvidTtl: 70,
    jwtSvidTtl: 71,
    federatesWith: ["third.org"],
    admin: false,
    downstream: false,
    expiresAt: 5_000_000_000n,
    dnsNames: ["b.example"],
    storeSvid: false,
    hint: "second",
    labels: { team: "bank", tier: "gold" },
  });
  delete other.additionalAttributes;
  let expected = await entries.getEntry({ id: "e1" });
  for (const field of FIELDS.filter((name) => !["revisionNumber", "createdAt"].includes(name))) {
    const inputMask = create(EntryMaskSchema, { [field]: true });
    const { results } = await entries.batchUpdateEntry({ entries: [other], inputMask });
    const revisionNumber = expected.revisionNumber + 1n;
    expected = { ...expected, [field]: other[field as keyof Message], revisionNumber };
    if (field === "additionalAttributes") {
      delete expected.additionalAttributes;
    }
    assert.equal(results[0]?.status?.message, "OK", field);
    assert.deepEqual(results[0]?.entry, expected, field);
  }
  const { results } = await entries.batchUpdateEntry({ entries: [full()] });
  const all = { ...full(), createdAt: expected.createdAt, revisionNumber: expected.revisionNumber + 1n };
  assert.deepEqual(results[0]?.entry, all, "no mask is every field");
});

test("a batch fails item by item, in order", async (t) => {
  const server = await testServer(t);
  const entries = server.local(Entry);
  const plain = (change: Change) =>
    full({ federatesWith: [], storeSvid: false, admin: false, downstream: false, ...change });
  const foreign = { trustDomain: "other.org", path: "/x" };
  const { results } = await entries.batchCreateEntry({
    entries: [
      plain({ id: "a" }),
      plain({ id: "b" }),
      plain({ id: "c", spiffeId: foreign }),
      plain({ id: "d", selectors: [] }),
      full({ id: "e" }),
      plain({ id: "", hint: "own id", spiffeId: wire(id("/f")) }),
    ],
    outputMask: { hint: true },
  });
  assert.deepEqual(
    results.map((result) => result.status?.code),
    [
      status.OK,
      status.ALREADY_EXISTS,
      status.INVALID_ARGUMENT,
      status.INVALID_ARGUMENT,
      status.FAILED_PRECONDITION,
      status.OK,
    ],
  );
  assert.equal(results[1]?.entry?.id, "a", "the one that is there is answered");
  assert.equal(results[2]?.entry, undefined);
  assert.match(results[5]?.entry?.id ?? "", /^[0-9a-f-]{36}$/);
  const deleted = await entries.batchDeleteEntry({ ids: ["a", "nope"] });
  assert.deepEqual(
    deleted.results.map((result) => [result.id, result.status?.code]),
    [
      ["a", status.OK],
      ["nope", status.NOT_FOUND],
    ],
  );
  const missing = await entries.batchUpdateEntry({ entries: [plain({ id: "nope" })] });
  assert.equal(missing.results[0]?.status?.code, status.NOT_FOUND);
});

/** Entries by their selectors, as SPIRE's documentation has them. */
async function threeEntries(t: Parameters<typeof testServer>[0]) {
  const server = await testServer(t);
  await withOther(server);
  const entry = (name: string, selectors: string[], change: Change = {}) =>
    create(EntrySchema, {
      id: name,
      spiffeId: wire(id(`/${name}`)),
      parentId: wire(PARENT),
      selectors: selectors.map(wireSelector),
      ...change,
    });
  const client = server.local(Entry);
  await client.batchCreateEntry({
    entries: [
      entry("e1", ["a:1", "b:2", "c:3"], { hint: "x", federatesWith: ["other.org", "third.org"] }),
      entry("e2", ["a:1", "b:2"], { downstream: true, federatesWith: ["other.org"] }),
      entry("e3", ["a:1"]),
    ],
  });
  return client;
}

test("selector filters match exactly, by subset, by superset, by any", async (t) => {
  const client = await threeEntries(t);
  const found = async (match: Match, selectors: string[]) => {
    const filter = { bySelectors: { selectors: selectors.map(wireSelector), match } };
    const { entries } = await client.listEntries({ filter });
    assert.equal((await client.countEntries({ filter })).count, entries.length);
    return entries.map((entry) => entry.id).join(" ");
  };
  assert.equal(await found(Match.MATCH_EXACT, ["b:2", "a:1"]), "e2");
  assert.equal(await found(Match.MATCH_SUBSET, ["a:1", "b:2"]), "e2 e3");
  assert.equal(await found(Match.MATCH_SUPERSET, ["a:1", "b:2"]), "e1 e2");
  assert.equal(await found(Match.MATCH_ANY, ["c:3", "z:9"]), "e1");
  await assert.rejects(found(Match.MATCH_ANY, []), { code: status.INVALID_ARGUMENT });
  await assert.rejects(found(9 as Match, ["a:1"]), { code: status.INVALID_ARGUMENT });
});

test("the other filters; downstream false is no filter", async (t) => {
  const client = await threeEntries(t);
  const found = async (filter: Parameters<typeof client.listEntries>[0]["filter"] & {}) =>
    (await client.listEntries({ filter })).entries.map((entry) => entry.id).join(" ");
  assert.equal(await found({ bySpiffeId: wire(id("/e2")) }), "e2");
  assert.equal(await found({ byParentId: wire(PARENT) }), "e1 e2 e3");
  assert.equal(await found({ byParentId: wire(id("/none")) }), "");
  assert.equal(await found({ byHint: "x" }), "e1");
  assert.equal(await found({ byDownstream: true }), "e2");
  assert.equal(await found({ byDownstream: false }), "e1 e2 e3");
  const federates = (match: FederatesMatch, trustDomains: string[]) =>
    found({ byFederatesWith: { trustDomains, match } });
  assert.equal(await federates(FederatesMatch.MATCH_EXACT, ["other.org"]), "e2");
  assert.equal(await federates(FederatesMatch.MATCH_SUBSET, ["other.org"]), "e2");
  assert.equal(await federates(FederatesMatch.MATCH_SUPERSET, ["spiffe://other.org"]), "e1 e2");
  assert.equal(await federates(FederatesMatch.MATCH_ANY, ["third.org"]), "e1");
  await assert.rejects(found({ bySpiffeId: { trustDomain: "", path: "" } }), { code: status.INVALID_ARGUMENT });
});

test("pages: only where a size is asked for, and each entry once", async (t) => {
  const client = await threeEntries(t);
  assert.equal((await client.listEntries({})).nextPageToken, "");
  const seen: string[] = [];
  let pageToken = "";
  do {
    const page = await client.listEntries({ pageSize: 2, pageToken });
    seen.push(...page.entries.map((entry) => entry.id));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  assert.deepEqual(seen, ["e1", "e2", "e3"]);
  assert.equal((await client.listEntries({ pageSize: 2_147_483_647 })).entries.length, 3);
});

test("an entry that expired is given to nobody, and taken out", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const soon = BigInt(Math.floor(server.clock.now() / 1_000) + 30);
  const entry = full({
    federatesWith: [],
    parentId: wire(agent.id),
    expiresAt: soon,
  });
  await server.local(Entry).batchCreateEntry({ entries: [entry] });
  assert.equal((await server.remote(Entry, agent).getAuthorizedEntries({})).entries.length, 1);
  server.clock.advance(31_000);
  assert.equal((await server.remote(Entry, agent).getAuthorizedEntries({})).entries.length, 0);
  await server.registry.prune();
  assert.equal((await server.local(Entry).countEntries({})).count, 0);
});
