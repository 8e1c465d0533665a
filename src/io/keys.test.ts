import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { EveryhopError } from "../core/base/errors.ts";
import { diskKeyStore, type KeyStore, memoryKeyStore } from "./keys.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "everyhop-keys-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const inFolder = (): string => join(folder, "keys");
const modeOf = (path: string): number => statSync(path).mode & 0o777;
const code = (expected: string, message: RegExp) => (error: unknown) =>
  error instanceof EveryhopError && error.code === expected && message.test(error.message);

const implementations: readonly (readonly [string, () => Promise<KeyStore>])[] = [
  ["disk", () => diskKeyStore(inFolder())],
  ["memory", async () => memoryKeyStore()],
];

for (const [name, open] of implementations) {
  test(`${name}: what is written is read, replaced, listed and removed`, async () => {
    const keys = await open();
    assert.equal(await keys.read("a.pem"), null);
    await keys.write("b.pem", Buffer.from("b"));
    await keys.write("a.pem", Buffer.from("first"));
    await keys.write("a.pem", Buffer.from("second"));
    assert.equal(Buffer.from((await keys.read("a.pem")) ?? []).toString(), "second");
    assert.deepEqual(await keys.list(), ["a.pem", "b.pem"]);
    await keys.remove("a.pem");
    await keys.remove("a.pem");
    assert.deepEqual(await keys.list(), ["b.pem"]);
  });

  test(`${name}: a name cannot lead elsewhere`, async () => {
    const keys = await open();
    for (const bad of ["../a", "a/b", ".hidden", "", "A", "a\0"]) {
      await assert.rejects(keys.write(bad, Buffer.from("x")), code("internal", /cannot name a secret/), bad);
    }
  });
}

test("files are 0600 in a 0700 folder, whatever the umask", async () => {
  const before = process.umask(0);
  try {
    const keys = await diskKeyStore(join(folder, "deep/keys"));
    await keys.write("a.pem", Buffer.from("x"));
  } finally {
    process.umask(before);
  }
  assert.equal(modeOf(join(folder, "deep/keys")), 0o700);
  assert.equal(modeOf(join(folder, "deep/keys/a.pem")), 0o600);
});

test("a folder that others may read is refused", async () => {
  for (const mode of [0o755, 0o750, 0o711]) {
    mkdirSync(inFolder(), { recursive: true });
    chmodSync(inFolder(), mode);
    await assert.rejects(diskKeyStore(inFolder()), code("permission-denied", /others than its owner \(mode 7/));
  }
});

test("a key that others may read is refused, with what to do", async () => {
  const keys = await diskKeyStore(inFolder());
  await keys.write("a.pem", Buffer.from("x"));
  for (const mode of [0o640, 0o604, 0o620]) {
    chmodSync(join(inFolder(), "a.pem"), mode);
    await assert.rejects(keys.read("a.pem"), (error: unknown) => {
      assert.ok(error instanceof EveryhopError);
      assert.match(error.message, /mode 6/);
      assert.match(error.hint ?? "", /chmod 600/);
      return true;
    });
  }
});

test("links and folders are no keys", async () => {
  const keys = await diskKeyStore(inFolder());
  writeFileSync(join(folder, "target"), "x", { mode: 0o600 });
  symlinkSync(join(folder, "target"), join(inFolder(), "link.pem"));
  await assert.rejects(keys.read("link.pem"), code("storage-failed", /ELOOP/));
  mkdirSync(join(inFolder(), "folder.pem"), { mode: 0o700 });
  await assert.rejects(keys.read("folder.pem"), code("storage-failed", /not a file/));
});

test("what a crash left half-written is swept away, and nothing else", async () => {
  await (await diskKeyStore(inFolder())).write("a.pem", Buffer.from("x"));
  writeFileSync(join(inFolder(), ".b.pem.0123456789ab.tmp"), "half", { mode: 0o600 });
  writeFileSync(join(inFolder(), "notes"), "kept", { mode: 0o600 });
  await diskKeyStore(inFolder());
  assert.deepEqual(readdirSync(inFolder()).sort(), ["a.pem", "notes"]);
});

test("a write that fails leaves the old key and no litter", async () => {
  const keys = await diskKeyStore(inFolder());
  mkdirSync(join(inFolder(), "a.pem"), { mode: 0o700 });
  writeFileSync(join(inFolder(), "a.pem/in-the-way"), "");
  await assert.rejects(keys.write("a.pem", Buffer.from("x")), code("storage-failed", /could not write/));
  assert.deepEqual(readdirSync(inFolder()), ["a.pem"]);
});
