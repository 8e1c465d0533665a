import assert from "node:assert/strict";
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { conformanceFolder, withoutConformance } from "../conformance.ts";
import { EXAMPLE, everyhop, folder, processesNaming, SMALL_MESH, up } from "./mesh.ts";

test("a mesh starts, serves, is found by other commands and ends without a trace", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const mesh = await up(t, dir);
  const { echo, web } = mesh.services;
  assert(echo !== undefined && web !== undefined);

  assert.equal(mesh.ready, true);
  assert.equal(mesh.trustDomain, "test.example");
  assert.equal(mesh.stateDir, join(dir, ".everyhop"));
  assert.equal(statSync(mesh.stateDir).mode & 0o777, 0o700);
  assert.deepEqual(JSON.parse(readFileSync(join(mesh.stateDir, "mesh.json"), "utf8")), mesh);
  assert.equal(echo.spiffeId, "spiffe://test.example/ns/shop/sa/echo");
  assert.equal(echo.port, 8080);
  assert.deepEqual(Object.keys(web.outbound), ["echo"]);
  assert.match(readFileSync(`/proc/${echo.pid}/cmdline`, "latin1"), /node\0echo\.mjs\0$/);

  const allowed = await fetch(`http://${web.outbound.echo}/allowed`, { method: "POST", body: "hello" });
  assert.deepEqual(await allowed.json(), { service: "echo", url: "/allowed", body: "hello" });
  const denied = await fetch(`http://${web.outbound.echo}/other`, { method: "POST" });
  assert.deepEqual([denied.status, await denied.text()], [403, "RBAC: access denied"]);
  assert.match(denied.headers.get("x-everyhop-denial") ?? "", /^[0-9a-f]+$/);

  const status = JSON.parse((await everyhop(["status", "--dir", dir, "--json"])).stdout);
  assert.deepEqual(
    status.proxies.map(({ service, state }: { service: string; state: string }) => [service, state]).sort(),
    [
      ["echo", "synced"],
      ["web", "synced"],
    ],
  );

  const ran = await everyhop(["exec", "web", "--dir", dir, "--", "sh", "-c", "echo $EVERYHOP_ECHO_URL $PORT; exit 7"]);
  assert.deepEqual([ran.code, ran.stdout], [7, `http://${web.outbound.echo} ${web.app.split(":")[1]}\n`]);

  const again = await everyhop(["up", dir, "--detach", "--json"]);
  assert.deepEqual([again.code, JSON.parse(again.stdout).error.code], [3, "failed-precondition"]);

  assert.equal((await everyhop(["down", dir])).code, 0);
  assert.deepEqual(processesNaming(dir), []);
  for (const name of ["mesh.json", "run.json", "admin.sock", "run", "broker"]) {
    assert.equal(existsSync(join(mesh.stateDir, name)), false, name);
  }
  const nothing = await everyhop(["down", dir, "--json"]);
  assert.deepEqual([nothing.code, JSON.parse(nothing.stdout)], [0, { ended: false }]);
});

test("two meshes run side by side, one with its state elsewhere; both start a second time", async (t) => {
  const [one, two, state] = [folder(t, SMALL_MESH), folder(t, SMALL_MESH), folder(t)];
  await Promise.all([up(t, one), up(t, two, { flags: ["--state", state] })]);
  assert.equal(readlinkSync(join(two, ".everyhop")), state);
  await Promise.all([everyhop(["down", one]), everyhop(["down", two])]);
  assert.equal(lstatSync(join(two, ".everyhop"), { throwIfNoEntry: false }), undefined);

  const again = await up(t, two, { flags: ["--state", state] });
  assert.equal(again.stateDir, state);
  const echo = again.services.web?.outbound.echo;
  assert.equal((await fetch(`http://${echo}/allowed`, { method: "POST" })).status, 200);
  // The agent of the first run is forgotten, its entries too.
  const { agents } = JSON.parse((await everyhop(["agent", "list", "--dir", two, "--json"])).stdout);
  assert.equal(agents.length, 1);
});

test("the guide's policies are applied byte for byte", { skip: withoutConformance() }, () => {
  const published = join(conformanceFolder() ?? "", "configs");
  const names = readdirSync(join(EXAMPLE, "policies")).filter((name) => name !== "mesh.yaml");
  assert.deepEqual(names.sort(), [
    "authz-database-access.yaml",
    "authz-payment-service.yaml",
    "istio-peer-authentication.yaml",
  ]);
  for (const name of names) {
    assert.ok(readFileSync(join(EXAMPLE, "policies", name)).equals(readFileSync(join(published, name))), name);
  }
});
