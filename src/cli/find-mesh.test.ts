import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { EveryhopError } from "../core/base/errors.ts";
import { adminTarget, findMesh } from "./find-mesh.ts";

function folder(t: { after(end: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-mesh-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

test("a mesh is found by its folder and by its state folder", (t) => {
  const dir = folder(t);
  mkdirSync(join(dir, ".everyhop"));
  writeFileSync(join(dir, ".everyhop/mesh.json"), JSON.stringify({ adminSocket: "/x/admin.sock" }));
  assert.equal(findMesh({ dir }).adminSocket, "/x/admin.sock");
  assert.equal(adminTarget({ dir: join(dir, ".everyhop") }), "unix:/x/admin.sock");
});

test("--admin-socket needs no mesh document", () => {
  assert.equal(adminTarget({ adminSocket: "/y/admin.sock" }), "unix:/y/admin.sock");
  assert.equal(adminTarget({ adminSocket: "unix:///y/admin.sock" }), "unix:/y/admin.sock");
});

test("no mesh, and a document that is none, are said with the next step", (t) => {
  const dir = folder(t);
  const fails = (code: string) => (error: unknown) =>
    error instanceof EveryhopError && error.code === code && error.hint !== undefined;
  assert.throws(() => findMesh({ dir }), fails("unavailable"));
  writeFileSync(join(dir, "mesh.json"), "{");
  assert.throws(() => findMesh({ dir }), fails("storage-failed"));
});
