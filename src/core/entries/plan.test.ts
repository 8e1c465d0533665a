import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseYaml } from "../base/yaml.ts";
import { parseTrustDomain } from "../spiffe/id.ts";
import { type EntryDraft, entryKey, type RegistrationEntry, validateEntry } from "./entry.ts";
import { parseEntrySet, SET_LABEL } from "./entry-set.ts";
import { planEntries } from "./plan.ts";

const trustDomain = parseTrustDomain("example.com");

function entry(draft: Partial<EntryDraft>): RegistrationEntry {
  const whole = {
    spiffeId: "spiffe://example.com/web",
    parentId: "spiffe://example.com/node",
    selectors: ["a:b"],
    ...draft,
  };
  const checked = validateEntry(whole, { trustDomain, now: 0, newId: "" });
  assert.ok(checked.ok, JSON.stringify(checked));
  return checked.entry;
}

const of = (set: string, draft: Partial<EntryDraft> = {}) =>
  entry({ ...draft, labels: { ...draft.labels, [SET_LABEL]: set } });

test("what is missing is created, what differs is changed, what is no longer wanted is removed", () => {
  const current = [
    of("shop", { id: "1" }),
    of("shop", { id: "2", spiffeId: "spiffe://example.com/api", x509SvidTtlMs: 60_000 }),
    of("shop", { id: "3", spiffeId: "spiffe://example.com/old" }),
    of("bank", { id: "4", spiffeId: "spiffe://example.com/bank" }),
    entry({ id: "5", spiffeId: "spiffe://example.com/by-hand" }),
  ];
  const wanted = [
    of("shop"),
    of("shop", { spiffeId: "spiffe://example.com/api", x509SvidTtlMs: 30_000 }),
    of("shop", { spiffeId: "spiffe://example.com/new" }),
    of("shop", { spiffeId: "spiffe://example.com/by-hand" }),
    of("shop", { spiffeId: "spiffe://example.com/bank" }),
  ];
  const plan = planEntries("shop", wanted, current);
  assert.equal(plan.unchanged, 1);
  assert.deepEqual(
    plan.create.map(({ spiffeId }) => spiffeId),
    ["spiffe://example.com/new"],
  );
  assert.deepEqual(
    plan.update.map(({ after, fields }) => [after.id, fields]),
    [
      ["2", ["x509SvidTtlMs"]],
      ["5", ["labels"]],
    ],
    "an entry that nobody owns is adopted",
  );
  assert.deepEqual(
    plan.remove.map(({ id }) => id),
    ["3"],
    "nothing that another set or nobody owns",
  );
  assert.deepEqual(
    plan.conflicts.map(({ found }) => found.id),
    ["4"],
  );
});

test("a changed selector is an update of the same entry", () => {
  const plan = planEntries("shop", [of("shop", { selectors: ["a:c"] })], [of("shop", { id: "1" })]);
  assert.deepEqual([plan.create.length, plan.remove.length], [0, 0]);
  assert.deepEqual(
    plan.update.map(({ after, fields }) => [after.id, fields]),
    [["1", ["selectors"]]],
  );
});

test("once applied, a plan is empty; and it never touches what is not its own", () => {
  const draft = fc.record({
    spiffeId: fc.constantFrom("a", "b", "c").map((name) => `spiffe://example.com/${name}`),
    selectors: fc.subarray(["a:1", "a:2", "b:1"], { minLength: 1 }),
    x509SvidTtlMs: fc.constantFrom(0, 60_000),
  });
  const distinct = <T extends RegistrationEntry>(entries: readonly T[]): T[] => [
    ...new Map(entries.map((one) => [entryKey(one), one])).values(),
  ];
  const owner = fc.constantFrom("shop", "bank", "");
  const registry = fc
    .array(fc.tuple(draft, owner), { maxLength: 8 })
    .map((rows) =>
      distinct(rows.map(([one, set], index) => (set === "" ? entry : of.bind(null, set))({ ...one, id: `e${index}` }))),
    );
  const wanted = fc.array(draft, { maxLength: 8 }).map((rows) => distinct(rows.map((one) => of("shop", one))));
  fc.assert(
    fc.property(registry, wanted, (current, want) => {
      const plan = planEntries("shop", want, current);
      const after = new Map(current.map((one) => [one.id, one]));
      for (const { id } of plan.remove) {
        assert.equal(after.get(id)?.labels[SET_LABEL], "shop");
        after.delete(id);
      }
      for (const { before, after: changed } of plan.update) {
        assert.notEqual(before.labels[SET_LABEL], "bank");
        after.set(before.id, changed);
      }
      for (const [index, one] of plan.create.entries()) {
        after.set(`new${index}`, { ...one, id: `new${index}` });
      }
      const again = planEntries("shop", want, [...after.values()]);
      assert.deepEqual([again.create, again.update, again.remove], [[], [], []]);
      assert.equal(again.unchanged + again.conflicts.length, want.length);
    }),
  );
});

function read(text: string) {
  const [document] = parseYaml(text, "set.yaml").documents;
  assert.ok(document !== undefined);
  return parseEntrySet(document);
}

const HEAD = "apiVersion: everyhop.dev/v1\nkind: EntrySet\nmetadata: {name: shop, labels: {team: shop}}\n";

test("a template makes an entry for each combination of what it is filled with", () => {
  const { set, issues } = read(`${HEAD}
defaults: {parentId: spiffe://example.com/node/a, x509SvidTtl: 30m}
templates:
  service:
    spiffeId: spiffe://example.com/ns/{ns}/sa/{account}
    selectors: ["k8s:ns:{ns}", "k8s:sa:{account}"]
    labels: {tier: "{ns}"}
entries:
- {template: service, with: {ns: [shop, pay], account: [web, api]}}
- {spiffeId: spiffe://example.com/node/a, node: true, selectors: ["k8s_psat:cluster:a"]}
`);
  assert.deepEqual(issues, []);
  assert.equal(set?.entries.length, 5);
  assert.deepEqual(set?.entries[0]?.draft, {
    spiffeId: "spiffe://example.com/ns/shop/sa/web",
    parentId: "spiffe://example.com/node/a",
    selectors: ["k8s:ns:shop", "k8s:sa:web"],
    x509SvidTtlMs: 1_800_000,
    labels: { team: "shop", tier: "shop", [SET_LABEL]: "shop" },
  });
  assert.equal(set?.entries[4]?.draft.parentId, "spiffe://example.com/spire/server");
});

test("what is not understood in a set is refused, with its line", () => {
  const rows: [string, number, RegExp][] = [
    ["entries: [{spiffeID: x}]", 4, /unknown field `spiffeID`/],
    ["entries: [{template: none}]", 4, /no template `none`/],
    ["templates: {a: {spiffeId: 'x{y}'}}\nentries: [{template: a}]", 5, /`\{y\}` has no value/],
    ["templates: {a: {spiffeId: x}}\nentries: [{template: a, with: {y: z}}]", 5, /`y` stands nowhere/],
    ["entries: [{x509SvidTtl: soon}]", 4, /duration/],
    ["entries: x", 4, /list/],
    [`templates: {a: {spiffeId: '{a}{b}{c}'}}\nentries: [{template: a, with: ${many()}}]`, 5, /makes 27000000 entries/],
  ];
  for (const [text, line, message] of rows) {
    const { set, issues } = read(HEAD + text);
    assert.equal(set, null, text);
    assert.match(issues[0]?.message ?? "", message, text);
    assert.equal(issues[0]?.line, line, text);
  }
});

function many(): string {
  const values = JSON.stringify(Array.from({ length: 300 }, (_, index) => `v${index}`));
  return `{a: ${values}, b: ${values}, c: ${values}}`;
}
