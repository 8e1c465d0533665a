/** What every store must do for callers who ask again because an answer was lost: nothing is lost, nothing doubled. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EveryhopError } from "../../core/base/errors.ts";
import { parseSpiffeId, parseTrustDomain } from "../../core/spiffe/id.ts";
import { aNode, anEntry, anIntent, type StoreUnderTest } from "./contract.ts";
import { type Fault, faultyStore } from "./faulty.ts";
import type { Store } from "./store.ts";

const kill = { order: "o1", spiffeId: parseSpiffeId("spiffe://example.com/bad"), since: 7 };
const other = parseTrustDomain("other.org");
const bundle = { trustDomain: other, sequence: 1, document: "{}" };
const relationship = { trustDomain: other, url: "https://other.org/", endpointSpiffeId: null };
const signed = { serial: "01", issued: Buffer.from([1]) };

interface Write {
  readonly before?: (store: Store) => Promise<unknown>;
  readonly write: (store: Store) => Promise<unknown>;
}

/** Every write there is. */
const WRITES: Readonly<Record<string, Write>> = {
  "entries.create": { write: ({ entries }) => entries.create(anEntry()) },
  "entries.update": {
    before: ({ entries }) => entries.create(anEntry()),
    write: ({ entries }) => entries.update("e1", (entry) => ({ ...entry, hint: "changed" })),
  },
  "entries.delete": {
    before: ({ entries }) => entries.create(anEntry()),
    write: ({ entries }) => entries.delete("e1"),
  },
  "nodes.attested": { write: ({ nodes }) => nodes.attested(aNode()) },
  "nodes.update": {
    before: ({ nodes }) => nodes.attested(aNode()),
    write: ({ nodes }) => nodes.update(aNode().id, (node) => ({ ...node, banned: true })),
  },
  "nodes.delete": {
    before: ({ nodes }) => nodes.attested(aNode()),
    write: ({ nodes }) => nodes.delete(aNode().id),
  },
  "joinTokens.create": { write: ({ joinTokens }) => joinTokens.create("secret", 5_000) },
  "joinTokens.take": {
    before: ({ joinTokens }) => joinTokens.create("secret", 5_000),
    write: async ({ joinTokens }) => assert.notEqual(await joinTokens.take("secret", "mine"), null),
  },
  "joinTokens.prune": {
    before: ({ joinTokens }) => joinTokens.create("secret", 5_000),
    write: ({ joinTokens }) => joinTokens.prune(6_000),
  },
  "issuance.intend": { write: ({ issuance }) => issuance.intend([anIntent("01")], 1) },
  "issuance.record": {
    before: ({ issuance }) => issuance.intend([anIntent("01")], 1),
    write: ({ issuance }) => issuance.record([signed]),
  },
  "issuance.prune": {
    before: ({ issuance }) => issuance.intend([anIntent("01")], 1),
    write: ({ issuance }) => issuance.prune(10_000),
  },
  "kills.add": { write: ({ kills }) => kills.add(kill) },
  "kills.remove": { before: ({ kills }) => kills.add(kill), write: ({ kills }) => kills.remove(kill.spiffeId) },
  "bundles.put": { write: ({ bundles }) => bundles.put(other, () => bundle) },
  "bundles.delete": {
    before: ({ bundles }) => bundles.put(other, () => bundle),
    write: ({ bundles }) => bundles.delete(other),
  },
  "relationships.put": { write: ({ relationships }) => relationships.put(other, () => relationship) },
  "relationships.delete": {
    before: ({ relationships }) => relationships.put(other, () => relationship),
    write: ({ relationships }) => relationships.delete(other),
  },
};

/** That it was done already is no failure for who asks again. */
const DONE = new Set(["already-exists", "not-found"]);

async function untilAnswered(write: () => Promise<unknown>): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await write();
      return;
    } catch (error) {
      const code = error instanceof EveryhopError ? error.code : "";
      if (attempt > 0 && DONE.has(code)) {
        return;
      }
      assert.equal(code, "unavailable", String(error));
    }
  }
}

/** All that is there, and what the watchers' number says was written; a token that is there is taken to see it. */
async function everything(store: Store): Promise<unknown> {
  const { revision: _, ...records } = await store.snapshot();
  const { records: journal } = await store.issuance.list({ limit: 10 });
  return { records, journal, token: await store.joinTokens.take("secret", "who looks") };
}

/** Runs it on the stores that `make` gives. */
export function retryContract(name: string, make: () => Promise<StoreUnderTest>): void {
  test(`${name}: a write that fails before or after it is done may be asked for again`, async () => {
    const methods = Object.keys(WRITES).map((path) => path.split(".")[0]);
    const parts = ["entries", "nodes", "joinTokens", "issuance", "kills", "bundles", "relationships"];
    assert.deepEqual([...new Set(methods)], parts);
    for (const [path, { before, write }] of Object.entries(WRITES)) {
      const outcomes: unknown[] = [];
      for (const fault of [null, "before", "after"] as const) {
        const under = await make();
        try {
          const faults: { next: Fault } = { next: null };
          const store = faultyStore(under.store, faults);
          await before?.(store);
          faults.next = fault;
          await untilAnswered(() => write(store));
          outcomes.push(await everything(under.store));
        } finally {
          await under.end();
        }
      }
      assert.deepEqual(outcomes[1], outcomes[0], `${path}, failed before`);
      assert.deepEqual(outcomes[2], outcomes[0], `${path}, failed after`);
    }
  });
}
