import assert from "node:assert/strict";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ChainedLog, type LogOptions } from "./chained-log.ts";

const DAY = 86_400_000;

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-log-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

async function open(dir: string, more: Partial<LogOptions> = {}) {
  const lines: string[] = [];
  const log = await ChainedLog.open({
    dir,
    name: "test",
    title: "the test's log",
    now: () => DAY,
    onLine: (line) => lines.push(line),
    ...more,
  });
  return { log, lines };
}

const files = (dir: string): string[] =>
  readdirSync(dir)
    .sort()
    .map((name) => join(dir, name));

async function write(dir: string, count: number, more: Partial<LogOptions> = {}): Promise<void> {
  const { log } = await open(dir, more);
  for (let index = 0; index < count; index++) {
    await log.append([{ kind: "test", index, until: 2 * DAY }]);
  }
  await log.close();
}

test("what was appended is there after a restart, in order, and the chain goes on", async (t) => {
  const dir = folder(t);
  await write(dir, 3);
  await write(dir, 2);
  const { log, lines } = await open(dir);
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).n),
    [1, 2, 3, 4, 5],
  );
  assert.equal(log.records, 5);
  await Promise.all([log.append([{ kind: "a" }]), log.append([{ kind: "b" }, { kind: "c" }])]);
  assert.deepEqual(
    (await log.page(0)).lines.slice(-3).map((line) => JSON.parse(line).kind),
    ["a", "b", "c"],
  );
  await log.close();
});

test("a last line that a crash left unfinished is cut off, wherever it ended, and that is said in the log", async (t) => {
  const dir = folder(t);
  await write(dir, 2);
  const [file = ""] = files(dir);
  const whole = readFileSync(file);
  const first = whole.indexOf("\n") + 1;
  for (const length of [first + 1, first + 40, whole.length - 1]) {
    writeFileSync(file, whole.subarray(0, length));
    const { log, lines } = await open(dir);
    assert.equal(log.repairedBytes, length - first);
    assert.equal(lines.length, 1);
    await log.close();
    const again = await open(dir);
    assert.match(again.lines[1] ?? "", /"kind":"repaired"/);
    assert.equal(again.log.repairedBytes, 0);
    await again.log.close();
  }
});

test("a log that was changed is refused: a letter, a line taken out, lines swapped, one put in, a segment missing", async (t) => {
  const dir = folder(t);
  await write(dir, 6, { segmentBytes: 600 });
  const all = files(dir);
  assert.ok(all.length >= 2);
  const [file = "", second = ""] = all;
  const text = readFileSync(file, "utf8");
  const [one = "", two = "", ...rest] = text.split("\n");
  const changes: readonly (readonly [string, string])[] = [
    ["a letter", text.replace('"index":0', '"index":9')],
    ["a line taken out", [one, ...rest].join("\n")],
    ["lines swapped", [two, one, ...rest].join("\n")],
    ["a line put in", [one, one, two, ...rest].join("\n")],
    ["no line at all", `\n${text}`],
  ];
  for (const [name, changed] of changes) {
    writeFileSync(file, changed);
    await t.test(name, () => assert.rejects(open(dir), { code: "storage-failed", message: /not as it was written/ }));
  }
  writeFileSync(file, text);
  truncateSync(file, text.length - 5);
  await t.test("the end of a segment that is not the last", () =>
    assert.rejects(open(dir), { code: "storage-failed" }),
  );
  writeFileSync(file, text);
  if (all.length > 2) {
    unlinkSync(second);
    await t.test("a segment missing", () => assert.rejects(open(dir), { code: "storage-failed" }));
  }
});

test("segments follow each other, are read as one, and go once all they tell of has long expired", async (t) => {
  const dir = folder(t);
  await write(dir, 30, { segmentBytes: 1_000 });
  assert.ok(files(dir).length > 3);
  const { log, lines } = await open(dir, { segmentBytes: 1_000, now: () => 100 * DAY });
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).n),
    lines.map((_, index) => index + 1),
  );
  const paged: string[] = [];
  for (let after: number | null = 0; after !== null; ) {
    const page: { lines: readonly string[]; next: number | null } = await log.page(after);
    paged.push(...page.lines);
    after = page.next;
  }
  assert.deepEqual(paged, lines);
  for (let index = 0; index < 6; index++) {
    await log.append([{ kind: "later", text: "x".repeat(400), until: 101 * DAY }]);
  }
  await log.close();
  const later = await open(dir);
  assert.ok(later.log.records > lines.length);
  assert.ok(later.lines.length < later.log.records / 2, "the old ones are gone");
  assert.match(later.lines[0] ?? "", /"kind":"segment"/);
  await later.log.close();
  appendFileSync(files(dir).at(-1) ?? "", "\n");
  await assert.rejects(open(dir), { code: "storage-failed" });
});
