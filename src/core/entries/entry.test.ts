import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTrustDomain } from "../spiffe/id.ts";
import { type EntryDraft, entryKey, validateEntry } from "./entry.ts";

const context = { trustDomain: parseTrustDomain("example.com"), now: 1_000, newId: "new" };
const draft: EntryDraft = {
  spiffeId: "spiffe://example.com/ns/a/sa/b",
  parentId: "spiffe://example.com/spire/agent/join_token/x",
  selectors: ["unix:uid:0", "unix:path:/bin/a", "unix:uid:0"],
};

test("a draft becomes an entry", () => {
  const result = validateEntry(draft, context);
  assert.ok(result.ok);
  const { entry } = result;
  assert.deepEqual([entry.id, entry.revision, entry.createdAtMs, entry.expiresAtMs], ["new", 0, 1_000, null]);
  assert.deepEqual(entry.selectors, ["unix:path:/bin/a", "unix:uid:0"]);
});

test("an entry for nodes has the server as its parent", () => {
  const result = validateEntry({ ...draft, parentId: "spiffe://example.com/spire/server" }, context);
  assert.ok(result.ok);
});

test("each fault is said with its field", async (t) => {
  const cases: readonly (readonly [string, Partial<EntryDraft>, string])[] = [
    ["no ID", { spiffeId: "" }, "spiffeId is not a SPIFFE ID: cannot be empty"],
    [
      "another trust domain",
      { spiffeId: "spiffe://other.test/a" },
      "spiffeId is not in the trust domain `example.com`",
    ],
    ["no path", { spiffeId: "spiffe://example.com" }, "spiffeId has no path"],
    ["reserved", { spiffeId: "spiffe://example.com/spire/agent/x" }, "spiffeId is under `/spire`"],
    ["reserved itself", { spiffeId: "spiffe://example.com/spire" }, "spiffeId is under `/spire`"],
    ["parent of another trust domain", { parentId: "spiffe://other.test/a" }, "parentId is not in the trust domain"],
    ["its own parent", { parentId: draft.spiffeId }, "parentId is the entry's own SPIFFE ID"],
    ["no selectors", { selectors: [] }, "selectors needs 1 to 256 selectors, has 0"],
    ["a selector without type", { selectors: ["uid"] }, "selectors `uid`: must be `type:value`"],
    ["a selector without value", { selectors: ["unix:"] }, "selectors `unix:`: must be `type:value`"],
    ["an id with a slash", { id: "a/b" }, "id is not 1 to 255"],
    ["a negative lifetime", { x509SvidTtlMs: -1 }, "x509SvidTtlMs is not a lifetime"],
    ["a lifetime of ages", { jwtSvidTtlMs: 2 ** 50 }, "jwtSvidTtlMs is not a lifetime"],
    ["a negative expiry", { expiresAtMs: -1 }, "expiresAtMs is not a time"],
    ["federation with no name", { federatesWith: ["Other"] }, "federatesWith `Other`: trust domain characters"],
    ["a DNS name with a blank", { dnsNames: ["a b"] }, "dnsNames `a b` has the label"],
    ["a DNS name that is empty", { dnsNames: [""] }, "dnsNames `` is empty"],
    ["a DNS name twice", { dnsNames: ["a.b", "a.b"] }, "dnsNames `a.b` comes twice"],
    ["a long hint", { hint: "ü".repeat(513) }, "hint is longer than 1024 bytes"],
    [
      "a store with mixed selectors",
      { storeSvid: true, selectors: ["a:1", "b:1"] },
      "storeSvid needs selectors of one type",
    ],
  ];
  for (const [name, change, fault] of cases) {
    await t.test(name, () => {
      const result = validateEntry({ ...draft, ...change }, context);
      assert.ok(!result.ok);
      const said = result.faults.map(({ field, message }) => `${field} ${message}`);
      assert.ok(
        said.some((one) => one.startsWith(fault)),
        said.join("\n"),
      );
    });
  }
});

test("all faults are said at once", () => {
  const result = validateEntry({ spiffeId: "a", parentId: "b", selectors: [], hint: "x".repeat(2000) }, context);
  assert.deepEqual(result.ok ? [] : result.faults.map(({ field }) => field), [
    "spiffeId",
    "parentId",
    "selectors",
    "hint",
  ]);
});

test("duplicates are known whatever the order of their selectors", () => {
  const [left, right] = [
    ["a:1", "b:2"],
    ["b:2", "a:1", "a:1"],
  ].map((selectors) => {
    const result = validateEntry({ ...draft, selectors }, context);
    return result.ok ? entryKey(result.entry) : "";
  });
  assert.equal(left, right);
});
