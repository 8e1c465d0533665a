/** `everyhop policy test` as a CI job uses it: exit codes, one JSON document, JUnit, TAP. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const ROOT = join(import.meta.dirname, "../..");
const EXAMPLE = "examples/payments";

function policyTest(...args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["src/cli/main.ts", "policy", "test", ...args], {
    cwd: ROOT,
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

test("the example's policies are tested in full: every rule, every value, every mutant", () => {
  const { status, stdout, stderr } = policyTest(EXAMPLE, "--mutate", "--min-coverage", "100", "--json");
  assert.equal(status, 0, stderr + stdout);
  const { ok, failed, tests, coverage, mutation } = JSON.parse(stdout);
  assert.deepEqual([ok, failed], [true, 0]);
  assert.ok(tests >= 15);
  assert.deepEqual([coverage.rules.percent, coverage.values.percent, mutation.score], [100, 100, 100]);
  assert.ok(mutation.total > 30 && mutation.equivalent === 2);
  const equivalent = mutation.mutants.filter(({ state }: { state: string }) => state === "equivalent");
  for (const { by, file, line } of equivalent) {
    assert.match(by, /payment-service-deny-all` denies it anyway/);
    assert.match(file, /authz-payment-service\.yaml$/);
    assert.ok(line > 1);
  }
});

test("a failing test is exit code 1, and says why in every format", (t) => {
  const dir = mkdtempSync(join(tmpdir(), "policy-test-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, "t.yaml");
  writeFileSync(
    file,
    `apiVersion: everyhop.dev/v1
kind: PolicyTest
metadata: {name: wrong}
policies: [${JSON.stringify(join(ROOT, EXAMPLE, "policies"))}]
mesh: ${JSON.stringify(join(ROOT, EXAMPLE, "everyhop.yaml"))}
tests:
- name: the gateway deletes a payment
  request:
    source: {principal: example.com/ns/production/sa/api-gateway}
    destination: {namespace: production, labels: {app: payment-service}, port: 8080}
    request: {method: DELETE, path: /api/v1/payments}
  expect: allow
`,
  );
  const xml = join(dir, "junit.xml");
  const { status, stdout } = policyTest(file, "--json", "--junit", xml);
  assert.equal(status, 1);
  const { results, ok } = JSON.parse(stdout);
  assert.equal(ok, false);
  assert.deepEqual(results[0].differences, [{ field: "decision", expected: "allow", actual: "deny" }]);
  assert.match(results[0].nearestMiss.would, /DELETE/);
  assert.match(readFileSync(xml, "utf8"), /<failure type="decision"[\s\S]*<\/testsuites>/);
  const tapped = policyTest(file, "--format", "tap");
  assert.equal(tapped.status, 1);
  assert.match(tapped.stdout, /^TAP version 14\n1\.\.1\nnot ok 1 - wrong: the gateway deletes a payment\n {2}---\n/);
});

test("too little coverage is 1, a test that is not valid 2, and so is none", (t) => {
  const dir = mkdtempSync(join(tmpdir(), "policy-test-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const only = policyTest(EXAMPLE, "--filter", "the gateway may pay", "--min-coverage", "100", "--json");
  assert.equal(only.status, 1);
  assert.match(JSON.parse(only.stdout).shortfalls[0], /rule coverage is 25 %/);
  writeFileSync(join(dir, "t.yaml"), "apiVersion: everyhop.dev/v1\nkind: PolicyTest\nmetadata: {name: x}\ntest: []\n");
  const bad = policyTest(dir, "--json");
  assert.equal(bad.status, 2);
  assert.match(JSON.stringify(JSON.parse(bad.stdout).error.issues), /"line":4.*did you mean `tests`/);
  assert.equal(policyTest(join(EXAMPLE, "policies")).status, 2);
});
