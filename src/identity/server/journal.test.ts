import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { anIntent } from "../../io/store/contract.ts";
import type { IssuanceStore } from "../../io/store/store.ts";
import { storeJournal } from "./journal.ts";

/** A store that counts transactions. */
function recording(fail = false) {
  const batches: string[] = [];
  const store = {
    async intend(intents: readonly { serial: string }[]) {
      batches.push(`intend ${intents.map(({ serial }) => serial).join(" ")}`);
      if (fail) {
        throw new Error("the disk is full");
      }
    },
    async record(signed: readonly { serial: string }[]) {
      batches.push(`record ${signed.map(({ serial }) => serial).join(" ")}`);
    },
  };
  return { batches, journal: storeJournal(store as unknown as IssuanceStore, new FakeClock()) };
}

test("what comes in one turn is written in one transaction; what comes later in another", async () => {
  const { batches, journal } = recording();
  await Promise.all(["1", "2", "3"].map((serial) => journal.intend(anIntent(serial))));
  await Promise.all(["1", "2"].map((serial) => journal.record(serial, new Uint8Array())));
  await journal.intend(anIntent("4"));
  assert.deepEqual(batches, ["intend 1 2 3", "record 1 2", "intend 4"]);
});

test("where the write fails, each of the batch hears of it, and the next is tried anew", async () => {
  const { batches, journal } = recording(true);
  const results = await Promise.allSettled(["1", "2"].map((serial) => journal.intend(anIntent(serial))));
  assert.deepEqual(
    results.map(({ status }) => status),
    ["rejected", "rejected"],
  );
  await assert.rejects(async () => journal.intend(anIntent("3")), /disk/);
  assert.deepEqual(batches, ["intend 1 2", "intend 3"]);
});
