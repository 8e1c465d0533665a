import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type RegistrationEntry, validateEntry } from "../../core/entries/entry.ts";
import { parseSelector } from "../../core/entries/selector.ts";
import { parseTrustDomain, type SpiffeId } from "../../core/spiffe/id.ts";
import { aNode } from "../../io/store/contract.ts";
import type { Change, ChangedRecord, Snapshot, Store, StoreEvent } from "../../io/store/store.ts";
import { Records } from "./records.ts";

const trustDomain = parseTrustDomain("example.com");
const full = (path: string) => `spiffe://example.com${path}` as SpiffeId;
const AGENTS = ["a", "b", "c"].map((name) => full(`/spire/agent/${name}`));

function entry(id: string, path: string, parent: string, selectors: readonly string[]): RegistrationEntry {
  const draft = { id, spiffeId: full(path), parentId: full(parent), selectors };
  const result = validateEntry(draft, { trustDomain, now: 0, newId: "" });
  assert.ok(result.ok, JSON.stringify(result));
  return result.entry;
}

const EMPTY: Snapshot = { revision: 0, entries: [], nodes: [], kills: [], bundles: [], relationships: [] };

/** Records over a store that says what the test says. */
async function scripted(snapshot: Snapshot = EMPTY) {
  let tell: (event: StoreEvent) => void = () => {};
  const store = {
    snapshot: async () => snapshot,
    watch(watcher: (event: StoreEvent) => void) {
      tell = watcher;
      return () => {};
    },
  };
  const records = await Records.open(store as unknown as Store, trustDomain);
  return { records, tell: (event: StoreEvent) => tell(event) };
}

const selectors = fc.uniqueArray(
  fc.integer({ min: 0, max: 3 }).map((n) => `t:${n}`),
  { minLength: 1, maxLength: 2 },
);
const path = fc.integer({ min: 0, max: 4 }).map((n) => `/w${n}`);
const parent = fc.oneof(path, fc.constantFrom("/spire/server", "/spire/agent/a", "/spire/agent/b", "/spire/agent/c"));
const change: fc.Arbitrary<ChangedRecord> = fc.oneof(
  fc
    .record({ id: fc.integer({ min: 0, max: 8 }).map((n) => `e${n}`), path, parent, selectors, gone: fc.boolean() })
    .filter((each) => each.path !== each.parent)
    .map(({ id, gone, ...of }) => {
      return { kind: "entry" as const, id, entry: gone ? null : entry(id, of.path, of.parent, of.selectors) };
    }),
  fc.record({ id: fc.constantFrom(...AGENTS), selectors, gone: fc.boolean() }).map(({ id, gone, ...of }) => {
    const node = gone ? null : aNode({ id, selectors: of.selectors.map(parseSelector) });
    return { kind: "node" as const, id, node };
  }),
  fc.record({ id: path.map(full), gone: fc.boolean() }).map(({ id, gone }) => {
    return { kind: "kill" as const, id, kill: gone ? null : { order: "o", spiffeId: id, since: 0 } };
  }),
);

test("whose entries a change alters is among those it touches", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 30 }), async (changes) => {
      const { records, tell } = await scripted();
      const seen = (agent: SpiffeId): string => {
        const authorized = records.entries.authorized(agent, records.nodes.get(agent)?.selectors ?? []);
        return JSON.stringify(authorized.filter(({ spiffeId }) => !records.kills.has(spiffeId)));
      };
      let touched: ReadonlySet<SpiffeId> = new Set();
      records.watch((each, before) => {
        touched = records.touched(each, before);
      });
      for (const [index, record] of changes.entries()) {
        const before = AGENTS.map(seen);
        tell({ revision: index + 1, ...record } as Change);
        for (const [at, agent] of AGENTS.entries()) {
          assert.ok(seen(agent) === before[at] || touched.has(agent), `${agent}: ${JSON.stringify(record)}`);
        }
      }
    }),
  );
});

test("after a time without the database each difference is one change, and what was known already is none", async () => {
  const kept = entry("kept", "/a", "/spire/agent/a", ["t:1"]);
  const old = entry("old", "/b", "/spire/agent/a", ["t:1"]);
  const { records, tell } = await scripted({ ...EMPTY, revision: 5, entries: [kept, old], nodes: [aNode()] });
  const heard: string[] = [];
  records.watch((each, before) => heard.push(`${each.kind} ${each.id} ${before?.hint ?? "-"}`));
  tell({ revision: 5, kind: "entry", id: "old", entry: null });
  assert.deepEqual(heard, [], "it is in the snapshot");
  const changed = { ...kept, hint: "new", revision: 1 };
  tell({ kind: "replaced", snapshot: { ...EMPTY, revision: 9, entries: [changed], nodes: [aNode({ serial: "0b" })] } });
  assert.deepEqual(heard.sort(), ["entry kept ", "entry old ", `node ${aNode().id} -`]);
  assert.equal(records.revision, 9);
  assert.deepEqual(records.entries.sorted(), [changed]);
});
