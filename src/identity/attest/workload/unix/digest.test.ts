import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type FileIdentity, fileIdentity } from "../../../../io/process.ts";
import { makeFileDigests } from "./digest.ts";

const dir = mkdtempSync(join(tmpdir(), "everyhop-digest-"));
after(() => rmSync(dir, { recursive: true, force: true }));

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
const later = () => Date.now() + 60_000;

async function identity(file: string): Promise<FileIdentity> {
  return (await fileIdentity(file)) as FileIdentity;
}

test("the digest is that of the file named by its identity, and of no other", async () => {
  const file = join(dir, "a");
  writeFileSync(file, "good");
  const good = await identity(file);
  const digests = makeFileDigests(later);
  assert.equal(await digests.digest(file, good), sha256("good"));
  rmSync(file);
  writeFileSync(file, "evil");
  assert.equal(await makeFileDigests(later).digest(file, good), null);
});

test("a file rewritten with its old times is read again", async () => {
  const file = join(dir, "b");
  writeFileSync(file, "good");
  const { atime, mtime } = statSync(file);
  const digests = makeFileDigests(later);
  assert.equal(await digests.digest(file, await identity(file)), sha256("good"));
  writeFileSync(file, "evil");
  utimesSync(file, atime, mtime);
  assert.equal(await digests.digest(file, await identity(file)), sha256("evil"));
});

test("the digest of a file that was just changed is not remembered", async () => {
  const file = join(dir, "c");
  writeFileSync(file, "good");
  const good = await identity(file);
  const digests = makeFileDigests(() => Date.now());
  assert.equal(await digests.digest(file, good), sha256("good"));
  rmSync(file);
  assert.equal(await digests.digest(file, good), null);
});

test("askers at the same time share one reading", async () => {
  const file = join(dir, "d");
  writeFileSync(file, "x".repeat(3_000_000));
  const digests = makeFileDigests(later);
  const known = await identity(file);
  const all = await Promise.all(Array.from({ length: 50 }, () => digests.digest(file, known)));
  assert.deepEqual(new Set(all), new Set([sha256("x".repeat(3_000_000))]));
});
