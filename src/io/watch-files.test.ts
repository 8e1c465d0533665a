import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { FakeClock } from "../core/base/clock.ts";
import { type FileSet, watchFiles } from "./watch-files.ts";

/** A folder, a watch on it and a clock that only the test moves: the rescan stands for the kernel's word. */
function watched(t: { after(clean: () => void): void }, files: Readonly<Record<string, string>>, paths = ["."]) {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-watch-"));
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(dir, name), text);
  }
  const clock = new FakeClock();
  const watch = watchFiles(
    paths.map((path) => join(dir, path)),
    { clock, settleMs: 30, vanishMs: 200, patienceMs: 500, rescanMs: 10 },
  );
  t.after(() => {
    watch.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const heard: FileSet[] = [];
  watch.state.watch((next) => heard.push(next));
  const now = () =>
    Object.fromEntries([...watch.state.value.files].map(([path, text]) => [path.slice(dir.length + 1), text]));
  return { dir, clock, watch, heard, now };
}

test("reads what is there, in folders and by name, and leaves editors' files alone", (t) => {
  const { now } = watched(t, {
    "a.yaml": "a",
    "b.yml": "b",
    ".a.yaml.swp": "x",
    "a.yaml~": "x",
    "#a.yaml#": "x",
    "n.txt": "n",
  });
  assert.deepEqual(now(), { "a.yaml": "a", "b.yml": "b" });
});

test("a change is taken once it has settled", (t) => {
  const { dir, clock, heard, now } = watched(t, { "a.yaml": "old" });
  writeFileSync(join(dir, "a.yaml"), "new");
  clock.advance(10);
  appendFileSync(join(dir, "a.yaml"), ", and the rest");
  clock.advance(40);
  assert.equal(heard.length, 0, "still settling");
  clock.advance(40);
  assert.deepEqual(now(), { "a.yaml": "new, and the rest" });
  assert.equal(heard.length, 1);
});

test("a rename over, as editors save, is one change", (t) => {
  const { dir, clock, heard, now } = watched(t, { "a.yaml": "old" });
  writeFileSync(join(dir, ".a.yaml.tmp"), "new");
  renameSync(join(dir, ".a.yaml.tmp"), join(dir, "a.yaml"));
  clock.advance(100);
  assert.deepEqual(now(), { "a.yaml": "new" });
  assert.equal(heard.length, 1);
});

test("a file that vanishes or is emptied for a moment keeps its text; one that stays away is gone", (t) => {
  const { dir, clock, heard, now } = watched(t, { "a.yaml": "text", "b.yaml": "text" });
  renameSync(join(dir, "a.yaml"), join(dir, "a.yaml~"));
  writeFileSync(join(dir, "b.yaml"), "");
  clock.advance(100);
  assert.equal(heard.length, 0);
  writeFileSync(join(dir, "a.yaml"), "new");
  clock.advance(300);
  assert.deepEqual(now(), { "a.yaml": "new", "b.yaml": "" });
  rmSync(join(dir, "a.yaml"));
  clock.advance(300);
  assert.deepEqual(now(), { "b.yaml": "" });
});

test("moving a file to another name is one change: it is never there twice", (t) => {
  const { dir, clock, heard, now } = watched(t, { "a.yaml": "text" });
  renameSync(join(dir, "a.yaml"), join(dir, "b.yaml"));
  clock.advance(400);
  assert.deepEqual(now(), { "b.yaml": "text" });
  assert.equal(heard.length, 1);
});

test("a file that never settles does not hold up the others", (t) => {
  const { dir, clock, now } = watched(t, { "a.yaml": "a", "busy.yaml": "0" });
  writeFileSync(join(dir, "a.yaml"), "changed");
  for (let turn = 0; turn < 60; turn++) {
    appendFileSync(join(dir, "busy.yaml"), "x");
    clock.advance(10);
  }
  assert.equal(now()["a.yaml"], "changed");
  assert.equal(now()["busy.yaml"], "0");
});

test("a folder that is gone is a fault, not an empty folder", (t) => {
  const { dir, clock, watch, now } = watched(t, { "a.yaml": "text" });
  renameSync(dir, `${dir}-away`);
  clock.advance(1_000);
  assert.deepEqual(now(), { "a.yaml": "text" });
  assert.match(watch.state.value.faults[0]?.message ?? "", /no such file or folder/);
  renameSync(`${dir}-away`, dir);
  clock.advance(1_000);
  assert.deepEqual(watch.state.value.faults, []);
  assert.deepEqual(now(), { "a.yaml": "text" });
});

test("what cannot be read keeps its text, with a fault, until it can", (t) => {
  const { dir, clock, watch, now } = watched(t, { "a.yaml": "text" });
  writeFileSync(join(dir, "a.yaml"), Buffer.from([0xff, 0xfe, 0x00]));
  clock.advance(100);
  assert.deepEqual(now(), { "a.yaml": "text" });
  assert.match(watch.state.value.faults[0]?.message ?? "", /not UTF-8/);
  chmodSync(join(dir, "a.yaml"), 0o600);
  writeFileSync(join(dir, "a.yaml"), "good");
  clock.advance(100);
  assert.deepEqual(now(), { "a.yaml": "good" });
  assert.deepEqual(watch.state.value.faults, []);
});

test("new folders are followed, links to files are read, loops of links end", (t) => {
  const { dir, clock, now } = watched(t, { "a.yaml": "a" });
  mkdirSync(join(dir, "more"));
  writeFileSync(join(dir, "more", "b.yaml"), "b");
  symlinkSync(join(dir, "a.yaml"), join(dir, "link.yaml"));
  clock.advance(100);
  assert.deepEqual(now(), { "a.yaml": "a", "link.yaml": "a", "more/b.yaml": "b" });
  symlinkSync(dir, join(dir, "more", "loop"));
  clock.advance(100);
  assert.equal(
    Object.keys(now()).some((name) => name.split("loop").length > 18),
    false,
  );
});

test("a path that does not exist is a fault from the start", (t) => {
  const { watch, dir, clock, now } = watched(t, {}, ["later.yaml"]);
  assert.equal(watch.state.value.faults.length, 1);
  writeFileSync(join(dir, "later.yaml"), "here");
  clock.advance(100);
  assert.deepEqual(now(), { "later.yaml": "here" });
  assert.deepEqual(watch.state.value.faults, []);
});
