import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { activateAtMs, prepareAtMs, Rotation } from "./rotation.ts";
import type { Rotated, Slot } from "./slots.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

interface Bench {
  readonly clock: FakeClock;
  readonly rotation: Rotation<Rotated>;
  readonly published: (readonly Slot<Rotated>[])[];
  readonly discarded: string[];
  readonly errors: unknown[];
  fail: "create" | "publish" | null;
  advance(byMs: number): Promise<void>;
}

function bench(lifeMs: number, slots: (now: number) => readonly Slot<Rotated>[] = () => []): Bench {
  const clock = new FakeClock();
  let made = 0;
  const self: Bench = {
    clock,
    published: [],
    discarded: [],
    errors: [],
    fail: null,
    rotation: new Rotation<Rotated>({
      clock,
      slots: slots(clock.now()),
      create: async (now) => {
        if (self.fail === "create") {
          throw new Error("no entropy");
        }
        return { id: `a${made++}`, issuedAtMs: now, notAfterMs: now + lifeMs };
      },
      publish: async (next) => {
        if (self.fail === "publish") {
          throw new Error("the disk is full");
        }
        self.published.push(next);
      },
      discard: async ({ id }) => void self.discarded.push(id),
      onError: (error) => self.errors.push(error),
    }),
    async advance(byMs) {
      clock.advance(byMs);
      await self.rotation.settled();
      await self.rotation.settled();
    },
  };
  return self;
}

const states = (of: Bench): string =>
  of.rotation.slots.map(({ authority, state, tainted }) => `${authority.id}:${state}${tainted ? "!" : ""}`).join(" ");

test("SPIRE's timers: half the life, a sixth of it, at most 30 and 7 days", () => {
  const day = { id: "a", issuedAtMs: 0, notAfterMs: DAY };
  assert.deepEqual([prepareAtMs(day), activateAtMs(day)], [12 * HOUR, 20 * HOUR]);
  const year = { id: "a", issuedAtMs: 0, notAfterMs: 365 * DAY };
  assert.deepEqual([prepareAtMs(year), activateAtMs(year)], [335 * DAY, 358 * DAY]);
});

test("a day of a CA: prepared at 12 h, active at 20 h, dropped at 24 h", async () => {
  const b = bench(DAY);
  await b.rotation.start();
  assert.equal(states(b), "a0:active");
  await b.advance(12 * HOUR - 1);
  assert.equal(states(b), "a0:active");
  await b.advance(1);
  assert.equal(states(b), "a0:active a1:prepared");
  await b.advance(8 * HOUR - 1);
  assert.equal(b.rotation.active().id, "a0");
  await b.advance(1);
  assert.equal(states(b), "a0:old a1:active");
  await b.advance(4 * HOUR);
  assert.equal(states(b), "a1:active a2:prepared");
  assert.deepEqual(b.discarded, ["a0"]);
  b.rotation.stop();
});

test("nothing signs that was not published in an earlier step", async () => {
  const b = bench(60_000);
  await b.rotation.start();
  for (let second = 0; second < 300; second++) {
    await b.advance(1_000);
  }
  for (const [index, slots] of b.published.entries()) {
    const active = slots.find((slot) => slot.state === "active");
    const before = b.published[index - 1] ?? [];
    assert.ok(
      active === undefined || before.some((slot) => slot.authority.id === active.authority.id),
      `step ${index}`,
    );
  }
  assert.equal(b.errors.length, 0);
});

test("where making a key fails, the active one signs on, and it is tried again", async () => {
  const b = bench(60_000);
  await b.rotation.start();
  b.fail = "create";
  await b.advance(31_000);
  assert.equal(states(b), "a0:active");
  assert.ok(b.errors.length >= 1);
  await b.advance(1_000);
  b.fail = null;
  await b.advance(1_000);
  assert.equal(states(b), "a0:active a1:prepared");
});

test("where publishing fails, nothing has changed", async () => {
  const b = bench(60_000);
  await b.rotation.start();
  b.fail = "publish";
  await b.advance(55_000);
  assert.equal(states(b), "a0:active");
  await assert.rejects(b.rotation.prepare(), /disk is full/);
  await b.advance(6_000);
  assert.throws(() => b.rotation.active(), /no authority is active/);
  b.fail = null;
  await b.advance(1_000);
  assert.equal(b.rotation.active().notAfterMs > b.clock.now(), true);
});

test("by order: prepare, activate, taint, revoke", async () => {
  const b = bench(DAY);
  await b.rotation.start();
  await assert.rejects(b.rotation.activate("a1"), /unexpected authority ID/);
  await b.rotation.prepare();
  await b.rotation.prepare();
  assert.equal(states(b), "a0:active a2:prepared");
  assert.deepEqual(b.discarded, ["a1"]);
  await assert.rejects(b.rotation.taint("a0"), /unable to taint current/);
  await b.rotation.activate("a2");
  assert.equal(states(b), "a0:old a2:active");
  await b.rotation.taint("a0");
  assert.equal(states(b), "a0:old! a2:active");
  await assert.rejects(b.rotation.revoke("a2"), /unable to use current/);
  await b.rotation.revoke("a0");
  assert.equal(states(b), "a2:active");
  assert.deepEqual(b.discarded, ["a1", "a0"]);
});

test("orders given at once are done one after the other", async () => {
  const b = bench(DAY);
  await b.rotation.start();
  const { rotation } = b;
  await Promise.all([rotation.prepare(), rotation.activate("a1"), rotation.prepare(), rotation.activate("a2")]);
  assert.equal(states(b), "a0:old a1:old a2:active");
});

test("started with what was kept: the prepared one takes over where the active one expired meanwhile", async () => {
  const b = bench(DAY, (now) => [
    { authority: { id: "kept0", issuedAtMs: now - 2 * DAY, notAfterMs: now - 1 }, state: "active", tainted: false },
    {
      authority: { id: "kept1", issuedAtMs: now - HOUR, notAfterMs: now + 23 * HOUR },
      state: "prepared",
      tainted: false,
    },
  ]);
  await b.rotation.start();
  assert.equal(states(b), "kept1:active");
  assert.deepEqual(b.discarded, ["kept0"]);
});

test("started long after everything expired, it begins anew", async () => {
  const b = bench(DAY, (now) => [
    { authority: { id: "kept0", issuedAtMs: 0, notAfterMs: now - DAY }, state: "old", tainted: false },
    { authority: { id: "kept1", issuedAtMs: 0, notAfterMs: now }, state: "active", tainted: false },
  ]);
  await b.rotation.start();
  assert.equal(states(b), "a0:active");
});

test("stopped, it leaves the clock alone", async () => {
  const b = bench(60_000);
  await b.rotation.start();
  b.rotation.stop();
  await b.advance(DAY);
  assert.equal(states(b), "a0:active");
});
