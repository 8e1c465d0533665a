import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { auditCertificates } from "./audit.ts";
import { openAuthority } from "./crash-fixture.ts";
import { readSignerLog } from "./signer-log.ts";

const FIXTURE = new URL("./crash-fixture.ts", import.meta.url).pathname;

/** Runs the signer until it has handed out `count` certificates, kills it, and says what it handed out. */
function signAndKill(dir: string, count: number): Promise<Map<string, string>> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [FIXTURE, dir], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.split("\n").length > count) {
        child.kill("SIGKILL");
      }
    });
    child.on("error", reject);
    child.on("close", () => {
      const lines = text.split("\n").slice(0, -1);
      resolve(new Map(lines.map((line) => line.split(" ") as [string, string])));
    });
  });
}

test("killed at any moment, the journal knows every certificate that was handed out, and no serial comes twice", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-crash-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const handedOut = new Map<string, string>();
  for (const count of [1, 37]) {
    for (const [serial, der] of await signAndKill(dir, count)) {
      assert.equal(handedOut.has(serial), false);
      handedOut.set(serial, der);
    }
  }
  const { store, authority } = await openAuthority(dir);
  t.after(async () => {
    await authority.close();
    await store.close();
  });
  for (const [serial, der] of handedOut) {
    assert.equal(Buffer.from((await store.issuance.get(serial))?.issued ?? []).toString("hex"), der);
  }
  const seen = [...handedOut.keys()].map((serial) => ({ serial, spiffeId: "", seenBy: "test" }));
  const log = await readSignerLog(authority.signer);
  const audit = await auditCertificates({ store: store.issuance, seen, log, now: Date.now() });
  assert.deepEqual([audit.duplicates, audit.unjournaled, audit.mismatches, audit.unlogged], [0, 0, [], []]);
  assert.ok(audit.issued >= handedOut.size);
  assert.equal(authority.bundle.value.x509Authorities.length, 1, "each start found the CA of the first");
});
