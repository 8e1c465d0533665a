import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const TESTS = `
import { describe, test } from "node:test";
test("passes", () => {});
describe("group", () => {
  test("fails", () => { throw new Error("on purpose"); });
});
test("is skipped", (t) => t.skip("needs spire-agent"));
`;

test("one run: failures, skips by name, node's own summary, the exit code", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "everyhop-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const run = (text: string, ...args: string[]): { status: number | null; stdout: string } => {
    writeFileSync(join(folder, "a.test.mjs"), text);
    const { NODE_TEST_CONTEXT: _, CI: __, ...env } = process.env;
    return spawnSync(process.execPath, ["tools/test.ts", join(folder, "a.test.mjs"), ...args], {
      env,
      encoding: "utf8",
    });
  };
  const failing = run(TESTS);
  assert.equal(failing.status, 1);
  assert.match(failing.stdout, /on purpose/);
  assert.match(failing.stdout, /skipped: .*a\.test\.mjs: is skipped: needs spire-agent/);
  assert.match(
    failing.stdout,
    /ℹ tests 3\nℹ suites 1\nℹ pass 1\nℹ fail 1\nℹ cancelled 0\nℹ skipped 1\nℹ todo 0\nℹ duration_ms/,
  );
  const skipping = TESTS.replace("throw", "if (0) throw");
  assert.equal(run(skipping).status, 0);
  const strict = run(skipping, "--strict-skips");
  assert.equal(strict.status, 1);
  assert.match(strict.stdout, /✖ the suite is not in test\/skips\.json/);
});
