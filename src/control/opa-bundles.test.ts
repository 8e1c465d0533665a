import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { FakeClock } from "../core/base/clock.ts";
import { parseMeshConfig } from "../core/policy/mesh-config.ts";
import { silentLog } from "../io/log.ts";
import { OpaBundles } from "./opa-bundles.ts";

test("a bundle is read, read again when its file changes, and kept when that cannot be read", (t) => {
  const baseDir = mkdtempSync(join(tmpdir(), "bundles-"));
  t.after(() => rmSync(baseDir, { recursive: true }));
  const meshConfig = parseMeshConfig(
    JSON.stringify({ extensionProviders: [{ name: "a", everyhopOpaWasm: { bundle: "b.tar.gz", entrypoint: "x" } }] }),
  );
  const clock = new FakeClock(0);
  const opa = new OpaBundles(meshConfig, { baseDir, clock, log: silentLog });
  t.after(() => opa.close());
  const text = () => Buffer.from(opa.bundles.value.get("b.tar.gz") ?? []).toString();
  assert.equal(text(), "");
  const file = join(baseDir, "b.tar.gz");
  for (const content of ["one", "another"]) {
    writeFileSync(file, content);
    clock.advance(1_000);
    assert.equal(text(), content);
  }
  rmSync(file);
  clock.advance(1_000);
  assert.equal(text(), "another");
});
