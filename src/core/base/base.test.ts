import assert from "node:assert/strict";
import { test } from "node:test";
import { Cell } from "./cell.ts";
import { FakeClock } from "./clock.ts";
import { formatDuration, parseDurationMs } from "./duration.ts";
import { configError, EveryhopError, toEveryhopError } from "./errors.ts";
import { suggest } from "./suggest.ts";

test("durations are Go's", () => {
  const table = [
    ["1h30m", 5_400_000],
    ["90s", 90_000],
    ["500ms", 500],
    ["1.5h", 5_400_000],
    ["5", null],
    ["", null],
    ["-5s", null],
    ["1d", null],
  ] as const;
  for (const [text, ms] of table) {
    assert.equal(parseDurationMs(text), ms, text);
  }
  for (const ms of [250, 90_000, 3_600_000, 5_400_000, 90_000_000]) {
    assert.equal(parseDurationMs(formatDuration(ms)), ms, formatDuration(ms));
  }
});

test("the fake clock fires what falls due, in order, with timers set on the way", () => {
  const clock = new FakeClock(0);
  const fired: string[] = [];
  clock.after(20, () => fired.push(`late@${clock.now()}`));
  clock.after(10, () => {
    fired.push(`early@${clock.now()}`);
    clock.after(5, () => fired.push(`inner@${clock.now()}`));
  });
  const cancel = clock.after(12, () => fired.push("cancelled"));
  cancel();
  clock.advance(20);
  assert.deepEqual(fired, ["early@10", "inner@15", "late@20"]);
});

test("a cell tells its watchers until they leave", () => {
  const cell = new Cell(1);
  const seen: number[] = [];
  const leave = cell.watch((value) => seen.push(value));
  cell.set(2);
  leave();
  cell.set(3);
  assert.deepEqual([seen, cell.value], [[2], 3]);
});

test("suggestions are near or none", () => {
  assert.equal(suggest("princpals", ["principals", "paths", "ports"]), "principals");
  assert.equal(suggest("mtehods", ["methods"]), "methods");
  assert.equal(suggest("zebra", ["principals", "paths"]), null);
});

test("errors keep their code, hint, issues and exit code", () => {
  const error = configError([
    {
      code: "x",
      severity: "error",
      message: "unknown field `a`",
      file: "f.yaml",
      line: 3,
      column: 7,
      path: "spec.a",
      hint: "did you mean `b`?",
    },
  ]);
  assert.deepEqual(
    [error.exitCode, error.message, error.hint],
    [2, "f.yaml:3:7: spec.a: unknown field `a`", "did you mean `b`?"],
  );
  assert.equal(toEveryhopError(error), error);
  assert.equal(toEveryhopError(new TypeError("boom")).code, "internal");
  assert.equal(new EveryhopError("unavailable", "x").exitCode, 4);
});
