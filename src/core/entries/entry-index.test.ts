import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseSpiffeId, parseTrustDomain } from "../spiffe/id.ts";
import { type RegistrationEntry, validateEntry } from "./entry.ts";
import { authorizedEntries, EntryIndex } from "./entry-index.ts";
import { nearMisses } from "./near-miss.ts";
import { parseSelector, type Selector, selectorsMatch } from "./selector.ts";

const trustDomain = parseTrustDomain("example.com");
const full = (path: string) => `spiffe://example.com${path}`;
const AGENT = parseSpiffeId(full("/spire/agent/one"));

function entry(id: string, parent: string, selectors: readonly string[], path = `/${id}`): RegistrationEntry {
  const draft = { id, spiffeId: full(path), parentId: full(parent), selectors };
  const result = validateEntry(draft, { trustDomain, now: 0, newId: "" });
  assert.ok(result.ok, JSON.stringify(result));
  return result.entry;
}

const selectors = (...texts: readonly string[]): Selector[] => texts.map(parseSelector);
const ids = (entries: readonly RegistrationEntry[]): string => entries.map(({ id }) => id).join(" ");

test("an entry is for a workload that has all of its selectors", () => {
  const index = new EntryIndex([
    entry("a", "/x", ["unix:uid:0"]),
    entry("b", "/x", ["unix:uid:0", "unix:path:/bin/b"]),
    entry("c", "/x", ["unix:uid:1"]),
  ]);
  assert.equal(ids(index.matching(selectors("unix:uid:0", "unix:gid:0"))), "a");
  assert.equal(ids(index.matching(selectors("unix:path:/bin/b", "unix:uid:0"))), "a b");
  assert.equal(ids(index.matching([])), "");
});

test("the index finds what comparing each entry finds", () => {
  const one = fc.integer({ min: 0, max: 7 }).map((value) => `t:${value}`);
  const set = fc.uniqueArray(one, { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.array(set, { maxLength: 30 }), set, (wanted, found) => {
      const entries = wanted.map((list, number) => entry(`e${number}`, "/x", list));
      const have = new Set(selectors(...found));
      const slow = entries.filter((candidate) => selectorsMatch(candidate.selectors, have));
      const fast = new EntryIndex(entries).matching(have);
      assert.deepEqual(new Set(fast), new Set(slow));
      assert.equal(fast.length, slow.length);
    }),
  );
});

test("what an agent may hand out: its children, theirs, and those of its node's aliases", () => {
  const entries = [
    entry("direct", "/spire/agent/one", ["unix:uid:1"]),
    entry("child", "/direct", ["unix:uid:2"]),
    entry("grandchild", "/child", ["unix:uid:3"]),
    entry("alias", "/spire/server", ["x509pop:ca:1", "x509pop:zone:a"]),
    entry("through-alias", "/alias", ["unix:uid:4"]),
    entry("other-alias", "/spire/server", ["x509pop:zone:b"]),
    entry("hidden", "/other-alias", ["unix:uid:5"]),
    entry("other-agents", "/spire/agent/two", ["unix:uid:6"]),
  ];
  const node = selectors("x509pop:ca:1", "x509pop:zone:a", "x509pop:more:1");
  assert.equal(ids(authorizedEntries(AGENT, node, entries, trustDomain)), "child direct grandchild through-alias");
  assert.equal(ids(authorizedEntries(AGENT, [], entries, trustDomain)), "child direct grandchild");
});

test("a circle of parents ends, and the server's own children are nobody's to hand out", () => {
  const entries = [
    entry("a", "/spire/agent/one", ["t:1"]),
    entry("b", "/a", ["t:1"]),
    entry("a-again", "/b", ["t:2"], "/a"),
    entry("node", "/spire/server", ["x509pop:zone:a"]),
  ];
  assert.equal(ids(authorizedEntries(AGENT, [], entries, trustDomain)), "a a-again b");
  const server = parseSpiffeId(full("/spire/server"));
  assert.equal(ids(authorizedEntries(server, [], entries, trustDomain)), "");
});

test("the nearest misses, and what the workload has instead", () => {
  const entries = [
    entry("near", "/x", ["unix:uid:0", "unix:path:/bin/a"]),
    entry("nearer", "/x", ["unix:uid:0", "unix:gid:0", "unix:path:/bin/b"]),
    entry("far", "/x", ["k8s:ns:a", "k8s:sa:b"]),
    entry("hit", "/x", ["unix:uid:0"]),
  ];
  const misses = nearMisses(entries, selectors("unix:uid:0", "unix:gid:0", "unix:path:/bin/c"));
  assert.equal(ids(misses.map((miss) => miss.entry)), "nearer near far");
  assert.deepEqual(misses[0]?.missing, ["unix:path:/bin/b"]);
  assert.deepEqual(misses[0]?.instead["unix:path:/bin/b"], ["unix:path:/bin/c"]);
  assert.deepEqual(misses[2]?.instead["k8s:ns:a"], []);
  assert.equal(nearMisses(entries, [], 2).length, 2);
});
