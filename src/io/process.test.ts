import assert from "node:assert/strict";
import { test } from "node:test";
import { imageName, networkNamespace, parseStat, parseStatus, processImage, processStat } from "./process.ts";

const REST = "1234 1 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2000";

test("a process's own name cannot pass for the kernel's words about it", () => {
  for (const name of ["sleep", "x) Z 1 1 (", ") R 0 0", "a b c", "))))", ""]) {
    assert.deepEqual(parseStat(`4711 (${name}) S ${REST}`), { state: "S", parentPid: 1234, startTime: "987654" }, name);
  }
  for (const bad of [null, "", "4711", "4711 (x) S 1"]) {
    assert.equal(parseStat(bad), null);
  }
});

test("ids are the effective ones; a name with tabs and colons is no line of its own", () => {
  const status = "Name:\tUid:\t0\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 20 \nThreads:\t1\n";
  assert.deepEqual(parseStatus(status), { uid: 2, gid: 6, groups: [10, 20] });
  assert.deepEqual(parseStatus(status.replace("10 20 ", ""))?.groups, []);
  assert.equal(parseStatus(null), null);
});

test("an image is the start and the file; without the file it is the start", () => {
  assert.equal(imageName("5", null), "5");
  const own = processImage(process.pid) ?? "";
  assert.match(own, new RegExp(`^${processStat(process.pid)?.startTime}:\\d+:\\d+$`));
  assert.equal(processImage(2 ** 22), null);
});

test("a process's network namespace has a name", () => {
  assert.match(networkNamespace(process.pid) ?? "", /^net:\[\d+\]$/);
  assert.equal(networkNamespace(2 ** 22), null);
});
