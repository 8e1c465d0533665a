import assert from "node:assert/strict";
import { test } from "node:test";
import { type AllowedSkip, deadEntries, judgeSkips } from "./skips.ts";

const allowed: AllowedSkip[] = [{ suite: "test/interop/a.test.ts", needs: ["envoy", "curl"], why: "not packaged" }];

test("a skip is in order only where it is listed, says its peer, and the peer is missing", () => {
  const judge = (file: string, reason: string, here: readonly string[] = []): string | null =>
    judgeSkips([{ file, test: "t", reason }], allowed, (name) => here.includes(name))[0]?.fault ?? null;
  assert.equal(judge("test/interop/a.test.ts", "needs envoy"), null);
  assert.equal(judge("test/interop/a.test.ts", "needs envoy, curl"), null);
  assert.match(judge("test/interop/a.test.ts", "needs envoy", ["envoy"]) as string, /is on this machine/);
  assert.match(judge("test/interop/a.test.ts", "needs root") as string, /without root/);
  assert.match(judge("test/interop/a.test.ts", "flaky") as string, /names no peer/);
  assert.match(judge("test/interop/a.test.ts", "") as string, /names no peer/);
  assert.match(judge("test/interop/b.test.ts", "needs envoy") as string, /not in test\/skips\.json/);
});

test("an entry of a suite that is gone is found", () => {
  assert.deepEqual(deadEntries(allowed, ["test/interop/a.test.ts"]), []);
  assert.deepEqual(deadEntries(allowed, []), allowed);
});
