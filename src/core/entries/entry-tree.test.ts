import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseTrustDomain, type SpiffeId, serverId } from "../spiffe/id.ts";
import { type RegistrationEntry, validateEntry } from "./entry.ts";
import { byId } from "./entry-index.ts";
import { EntryTree } from "./entry-tree.ts";
import { parseSelector, type Selector, selectorsMatch } from "./selector.ts";

const trustDomain = parseTrustDomain("example.com");
const full = (path: string) => `spiffe://example.com${path}` as SpiffeId;
const AGENTS = ["/spire/agent/a", "/spire/agent/b"].map(full);

function entry(id: string, path: string, parent: string, selectors: readonly string[]): RegistrationEntry {
  const draft = { id, spiffeId: full(path), parentId: full(parent), selectors };
  const result = validateEntry(draft, { trustDomain, now: 0, newId: "" });
  assert.ok(result.ok, JSON.stringify(result));
  return result.entry;
}

/** What SPIRE's rule says, without any index. */
function slowly(entries: readonly RegistrationEntry[], agent: SpiffeId, node: readonly Selector[]) {
  const server = serverId(trustDomain);
  const have = new Set(node);
  const isAlias = (one: RegistrationEntry) => one.parentId === server && selectorsMatch(one.selectors, have);
  const parents = new Set<SpiffeId>([agent, ...entries.filter(isAlias).map(({ spiffeId }) => spiffeId)]);
  for (let before = -1; before < parents.size; ) {
    before = parents.size;
    for (const { spiffeId } of entries.filter((one) => one.parentId !== server && parents.has(one.parentId))) {
      parents.add(spiffeId);
    }
  }
  return entries.filter((one) => one.parentId !== server && parents.has(one.parentId)).sort(byId);
}

const selectors = fc.uniqueArray(
  fc.integer({ min: 0, max: 4 }).map((n) => `t:${n}`),
  { minLength: 1, maxLength: 3 },
);
const path = fc.integer({ min: 0, max: 5 }).map((n) => `/w${n}`);
const parent = fc.oneof(path, fc.constantFrom("/spire/server", "/spire/agent/a", "/spire/agent/b"));
const change = fc.record({
  id: fc.integer({ min: 0, max: 12 }).map((n) => `e${n}`),
  path,
  parent,
  selectors,
  gone: fc.boolean(),
});

test("after any changes: what an agent may hand out, one entry of it, and who may hand an entry out, agree with the rule", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 40 }), selectors, (changes, has) => {
      const tree = new EntryTree(trustDomain);
      const plain = new Map<string, RegistrationEntry>();
      for (const one of changes.filter((each) => each.path !== each.parent)) {
        if (one.gone) {
          assert.equal(tree.delete(one.id), plain.delete(one.id));
        } else {
          const made = entry(one.id, one.path, one.parent, one.selectors);
          tree.set(one.id, made);
          plain.set(one.id, made);
        }
      }
      const all = [...plain.values()].sort(byId);
      assert.deepEqual(tree.sorted(), all);
      assert.equal(tree.size, all.length);
      const node = has.map(parseSelector);
      for (const agent of AGENTS) {
        const expected = slowly(all, agent, node);
        assert.deepEqual(tree.authorized(agent, node), expected);
        for (const one of all) {
          assert.equal(tree.isAuthorized(one, agent, node), expected.includes(one), one.id);
        }
      }
    }),
  );
});

test("who holds an alias: the nodes that have its selectors; who holds what is below: those, and agents by name", () => {
  const tree = new EntryTree(trustDomain);
  const alias = entry("alias", "/rack", "/spire/server", ["x509pop:rack:7"]);
  const below = entry("below", "/web", "/rack", ["unix:uid:0"]);
  const under = entry("under", "/rack", "/spire/agent/a", ["unix:uid:1"]);
  for (const one of [alias, below, under]) {
    tree.set(one.id, one);
  }
  assert.deepEqual(tree.holders(alias), { agents: new Set(), aliases: [alias] });
  const { agents, aliases } = tree.holders(below);
  assert.deepEqual([agents.has(full("/spire/agent/a")), aliases], [true, [alias]]);
  assert.deepEqual([...tree.ofSpiffeId(full("/rack"))], [alias, under]);
});
