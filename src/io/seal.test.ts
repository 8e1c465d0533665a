import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { EveryhopError } from "../core/base/errors.ts";
import { memoryKeyStore } from "./keys.ts";
import { loadSealingKey, makeSealer, sealedKeyStore } from "./seal.ts";

const dir = mkdtempSync(join(tmpdir(), "everyhop-seal-"));
after(() => rmSync(dir, { recursive: true }));

const sealer = makeSealer(randomBytes(32));
const secret = Buffer.from("a private key");

test("what is sealed opens with the same key and context, and says nothing by itself", () => {
  const sealed = sealer.seal(secret, "a");
  assert.deepEqual(Buffer.from(sealer.open(sealed, "a") as Uint8Array), secret);
  assert.equal(Buffer.from(sealed).includes("private"), false);
  assert.notDeepEqual(sealed, sealer.seal(secret, "a"));
});

test("any octet changed, left out or added, another context or key: nothing opens, and nothing is thrown", () => {
  const sealed = sealer.seal(secret, "a");
  for (let at = 0; at < sealed.length; at++) {
    const changed = Uint8Array.from(sealed);
    changed[at] = (changed[at] as number) ^ 1;
    assert.equal(sealer.open(changed, "a"), null, `octet ${at}`);
    assert.equal(sealer.open(sealed.subarray(0, at), "a"), null, `${at} octets`);
  }
  assert.equal(sealer.open(Buffer.concat([sealed, Buffer.of(0)]), "a"), null);
  assert.equal(sealer.open(sealed, "b"), null);
  assert.equal(makeSealer(randomBytes(32)).open(sealed, "a"), null);
});

test("a sealed store gives back what it was given under that name, and passes over what does not open", async () => {
  const inner = memoryKeyStore();
  const unreadable: string[] = [];
  const store = sealedKeyStore(inner, sealer, "agent", (name) => unreadable.push(name));
  await store.write("one", secret);
  assert.deepEqual(Buffer.from((await store.read("one")) ?? []), secret);
  assert.equal(await store.read("none"), null);
  await inner.write("two", (await inner.read("one")) as Uint8Array);
  assert.equal(await store.read("two"), null);
  assert.deepEqual(unreadable, ["two"]);
});

test("a sealing key is made once, for its owner alone, and refused where it is not", async () => {
  const file = join(dir, "deep", "er", "cache.key");
  const key = await loadSealingKey(file);
  assert.deepEqual([key.length, await loadSealingKey(file)], [32, key]);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(statSync(join(dir, "deep", "er")).mode & 0o777, 0o700);
  const fails = (code: string) =>
    assert.rejects(loadSealingKey(file), (error: EveryhopError) => error.code === code && error.hint !== undefined);
  writeFileSync(file, "short");
  await fails("storage-failed");
  chmodSync(file, 0o644);
  await fails("permission-denied");
  await assert.rejects(
    loadSealingKey(join(file, "cache.key")),
    (error: EveryhopError) => error.code === "storage-failed",
  );
});
