import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseSpiffeId, parseTrustDomain } from "../spiffe/id.ts";
import { type RegistrationEntry, validateEntry } from "./entry.ts";
import { authorizedEntries } from "./entry-index.ts";
import { type AgentFacts, handedOut, obstacleFor, type Registered } from "./handed-out.ts";
import { parseSelector } from "./selector.ts";

const trustDomain = parseTrustDomain("example.com");
const id = (path: string) => parseSpiffeId(`spiffe://example.com${path}`);
const NOW = 1_000_000;

function entry(name: string, parent: string, selectors = ["unix:uid:0"], more: object = {}): RegistrationEntry {
  const draft = { id: name, spiffeId: id(`/${name}`), parentId: id(parent), selectors, ...more };
  const result = validateEntry(draft, { trustDomain, now: 0, newId: "" });
  assert.ok(result.ok, JSON.stringify(result));
  return result.entry;
}

const agent = (name: string, more: Partial<AgentFacts> = {}): AgentFacts => ({
  id: id(`/spire/agent/${name}`),
  selectors: [],
  banned: false,
  cutOff: false,
  expiresAtMs: NOW + 1,
  ...more,
});

const registered = (
  entries: readonly RegistrationEntry[],
  agents: readonly AgentFacts[],
  cutOff: string[] = [],
): Registered => ({
  entries,
  agents,
  trustDomain,
  isCutOff: (one) => cutOff.includes(one),
  now: NOW,
});

const ONE = agent("one", { selectors: [parseSelector("x509pop:zone:a")] });
const TWO = agent("two");
const ALIAS = entry("node", "/spire/server", ["x509pop:zone:a"]);

test("who hands an entry out: its parent, through aliases and entries above", () => {
  const direct = entry("direct", "/spire/agent/two");
  const through = entry("through", "/node");
  const below = entry("below", "/through");
  const all = registered([ALIAS, direct, through, below], [ONE, TWO]);
  const ids = (of: RegistrationEntry) => handedOut(of, all).agents.map((one) => one.id);
  assert.deepEqual(ids(direct), [TWO.id]);
  assert.deepEqual(ids(through), [ONE.id]);
  assert.deepEqual(ids(below), [ONE.id]);
  assert.deepEqual(handedOut(below, all).obstacles, []);
  assert.equal(obstacleFor(below, ONE.id, all), null);
  assert.equal(obstacleFor(below, TWO.id, all)?.reason, "other-agent");
});

test("why nobody gets it", () => {
  const reasons = (
    of: RegistrationEntry,
    agents: readonly AgentFacts[],
    entries = [ALIAS, of],
    cutOff: string[] = [],
  ) =>
    handedOut(of, registered(entries, agents, cutOff)).obstacles.map(({ reason, hint }) => {
      assert.ok(hint.length > 0);
      return reason;
    });
  const child = entry("child", "/node");
  const own = entry("own", "/spire/agent/two");
  assert.deepEqual(reasons(entry("lost", "/agent"), [ONE]), ["dangling-parent"]);
  assert.deepEqual(reasons(entry("early", "/spire/agent/none"), [ONE]), ["agent-not-attested"]);
  assert.deepEqual(reasons(child, [TWO]), ["no-node-matches"]);
  assert.deepEqual(reasons(own, [{ ...TWO, banned: true }]), ["agent-banned"]);
  assert.deepEqual(reasons(own, [{ ...TWO, expiresAtMs: NOW }]), ["agent-expired"]);
  assert.deepEqual(reasons(own, [{ ...TWO, cutOff: true }]), ["agent-cut-off"]);
  assert.deepEqual(reasons(entry("old", "/node", ["unix:uid:0"], { expiresAtMs: NOW }), [ONE]), ["expired"]);
  assert.deepEqual(reasons(child, [ONE], [ALIAS, child], [id("/child")]), ["cut-off"]);
  assert.deepEqual(reasons(ALIAS, [ONE]), ["for-nodes"]);
  assert.deepEqual(reasons(entry("stored", "/node", ["unix:uid:0"], { storeSvid: true }), [ONE]), ["for-store"]);
  // One agent that can is enough.
  assert.deepEqual(reasons(child, [ONE, agent("three", { selectors: ONE.selectors, banned: true })]), []);
});

test("walking up finds what walking down does", () => {
  const names = ["a", "b", "c", "d", "node"];
  const parents = fc.constantFrom(
    "/spire/agent/one",
    "/spire/agent/two",
    "/spire/server",
    ...names.map((name) => `/${name}`),
  );
  const drafts = fc.array(fc.tuple(fc.constantFrom(...names), parents), { maxLength: 12 });
  fc.assert(
    fc.property(drafts, (list) => {
      const entries = list
        .filter(([name, parent]) => parent !== `/${name}`)
        .map(([name, parent], index) => ({ ...entry(name, parent, ["x509pop:zone:a"]), id: String(index) }));
      const all = registered(entries, [ONE, TWO]);
      for (const { id: agentId, selectors } of all.agents) {
        const down = new Set(authorizedEntries(agentId, selectors, entries, trustDomain).map((one) => one.id));
        for (const one of entries.filter(({ parentId }) => parentId !== id("/spire/server"))) {
          const up = handedOut(one, all).agents.some((by) => by.id === agentId);
          assert.equal(up, down.has(one.id), `${one.spiffeId} under ${one.parentId} by ${agentId}`);
        }
      }
    }),
  );
});
