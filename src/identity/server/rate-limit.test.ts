import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { RateLimiter } from "./rate-limit.ts";

test("what is asked for within the burst is given at once; more waits its turn", async () => {
  const clock = new FakeClock();
  const limiter = new RateLimiter({ perSecond: 2, burst: 3, clock });
  await Promise.all([limiter.take("a"), limiter.take("a", 2)]);
  const order: string[] = [];
  const first = limiter.take("a").then(() => order.push("first"));
  const second = limiter.take("a").then(() => order.push("second"));
  await limiter.take("b", 3);
  clock.advance(500);
  await first;
  assert.deepEqual(order, ["first"]);
  clock.advance(500);
  await second;
});

test("more than the burst at once, and too long a wait, are refused", async () => {
  const clock = new FakeClock();
  const limiter = new RateLimiter({ perSecond: 1, burst: 5, clock });
  await assert.rejects(limiter.take("a", 6), { code: "resource-exhausted" });
  await limiter.take("a", 5);
  const waiting = Array.from({ length: 10 }, () => limiter.take("a"));
  await assert.rejects(limiter.take("a"), { code: "resource-exhausted" });
  clock.advance(10_000);
  await Promise.all(waiting);
});

test("peers without number cost no memory without number", async () => {
  const clock = new FakeClock();
  const limiter = new RateLimiter({ perSecond: 1, burst: 1, clock });
  for (let peer = 0; peer < 10_000; peer++) {
    await limiter.take(`p${peer}`);
  }
  await assert.rejects(limiter.take("one more"), { code: "resource-exhausted" });
  clock.advance(1_000);
  await limiter.take("one more");
});
