import assert from "node:assert/strict";
import { chownSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { without } from "../peers.ts";
import { cleanUp, everyhop, folder, processesNaming, SMALL_MESH } from "./mesh.ts";

const UID = 65_533;
const AS_USER = ["setpriv", "--reuid", String(UID), "--regid", String(UID), "--clear-groups", "--"];

/** Who runs the tests as an ordinary user has run every other test as one. */
const skip = without("root", "open-checkout");

test("an ordinary user starts a mesh, and nobody else can read its state", { skip }, async (t) => {
  const dir = folder(t, SMALL_MESH);
  for (const path of [dir, ...readdirSync(dir).map((name) => join(dir, name)), join(dir, "policies/policies.yaml")]) {
    chownSync(path, UID, UID);
  }
  const options = { wrap: AS_USER, env: { HOME: dir, TMPDIR: dir } };
  cleanUp(t, () => everyhop(["down", dir], options));
  const started = await everyhop(["up", dir, "--detach", "--json"], options);
  assert.equal(started.code, 0, started.stdout + started.stderr);
  const mesh = JSON.parse(started.stdout);
  assert.equal(statSync(mesh.stateDir).uid, UID);
  assert.equal(statSync(mesh.stateDir).mode & 0o777, 0o700);
  assert.equal(statSync(`/proc/${mesh.services.echo.pid}`).uid, UID);
  const answer = await fetch(`http://${mesh.services.web.outbound.echo}/allowed`, { method: "POST" });
  assert.equal(answer.status, 200);

  const isolated = await everyhop(["up", folder(t, SMALL_MESH), "--isolate", "--json"], options);
  assert.deepEqual([isolated.code, JSON.parse(isolated.stdout).error.code], [3, "permission-denied"]);
  assert.equal((await everyhop(["down", dir], options)).code, 0);
  assert.deepEqual(processesNaming(dir), []);
});
