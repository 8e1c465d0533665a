import assert from "node:assert/strict";
import { chmodSync, cpSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { MeshDocument } from "../../src/run/up/document.ts";
import { without } from "../peers.ts";
import { cleanUp, everyhop, folder, ROOT, run, SMALL_MESH, until, up } from "./mesh.ts";

const skip = without("netns", "curl");

/** What `service` gets for a request, asked from inside. */
async function ask(dir: string, service: string, url: string, method = "POST"): Promise<string> {
  const command = ["exec", service, "--dir", dir, "--", "curl", "-sm", "10", "-X", method, url];
  return (await everyhop(command)).stdout;
}

/** Namespaces, links and tables of isolated meshes on this machine. */
async function traces(): Promise<string[]> {
  const seen = await Promise.all([
    run(["ip", "netns", "list"]),
    run(["ip", "-o", "link"]),
    run(["nft", "list", "tables"]),
  ]);
  return seen.flatMap(({ stdout }) => stdout.match(/\bevh[\w-]+|\beveryhop_\w+/g) ?? []);
}

test("two isolated meshes run side by side, from folders that only root may enter", { skip }, async (t) => {
  // Both are below a folder of mkdtemp's, with its rights 0700: their services' users have no way to them.
  const dirs = [folder(t, SMALL_MESH), folder(t, SMALL_MESH)];
  const meshes = await Promise.all(dirs.map((dir) => up(t, dir, { flags: ["--isolate"] })));
  for (const [index, dir] of dirs.entries()) {
    assert.match(await ask(dir, "web", "http://echo:8080/allowed"), /"service":"echo"/);
    assert.equal(await ask(dir, "web", "http://echo:8080/other"), "RBAC: access denied");
    assert.match(await ask(dir, "echo", "http://web:8080/"), /"service":"web"/, "no policy selects web");
    const other = meshes[1 - index] as MeshDocument;
    const [address] = other.services.echo?.inbound.split(":") ?? [];
    assert.equal(await ask(dir, "web", `http://${address}:8080/allowed`), "", "the other mesh was reached");
  }
  const own = await everyhop(["exec", "web", "--dir", dirs[0] ?? "", "--", "sh", "-c", "id -u; pwd; cat /etc/shadow"]);
  const uid = /^Uid:\s*(\d+)/m.exec(readFileSync(`/proc/${meshes[0]?.services.web?.pid}/status`, "utf8"))?.[1];
  assert.deepEqual(own.stdout.split("\n")[0], uid);
  assert.notEqual(own.code, 0);
  assert(own.stdout.includes(dirs[0] ?? "-"), own.stdout);
});

test("a checkout that only root may enter can be isolated too", { skip }, async (t) => {
  const root = join(folder(t), "checkout");
  mkdirSync(root, { mode: 0o700 });
  for (const name of ["src", "bin", "package.json"]) {
    cpSync(join(ROOT, name), join(root, name), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(root, "node_modules"));
  const dir = join(root, "mesh");
  cpSync(folder(t, SMALL_MESH), dir, { recursive: true });
  chmodSync(dir, 0o700);
  const command = [process.execPath, join(root, "src/cli/main.ts")];
  cleanUp(t, () => run([...command, "down", dir]));
  const { code, stdout, stderr } = await run([...command, "up", dir, "--isolate", "--detach", "--json"]);
  assert.equal(code, 0, stdout + stderr);
  assert.match(await ask(dir, "web", "http://echo:8080/allowed"), /"service":"echo"/);
  assert.equal((await run([...command, "down", dir])).code, 0);
});

test("an isolated mesh that is killed leaves namespaces, and the next start removes them", { skip }, async (t) => {
  const before = new Set(await traces());
  const dir = folder(t, SMALL_MESH);
  const first = await up(t, dir, { flags: ["--isolate"] });
  const made = (await traces()).filter((name) => !before.has(name));
  assert(made.length >= 5, made.join(" "));
  process.kill(first.supervisorPid, "SIGKILL");
  const second = await up(t, dir, { flags: ["--isolate"] });
  assert.match(await ask(dir, "web", "http://echo:8080/allowed"), /"service":"echo"/);
  assert.deepEqual(
    (await traces()).filter((name) => made.includes(name)),
    [],
  );
  for (const { pid } of Object.values(first.services)) {
    assert(!Object.values(second.services).some((service) => service.pid === pid));
  }
  assert.equal((await everyhop(["down", dir])).code, 0);
  await until("nothing is left", async () => (await traces()).every((name) => before.has(name)));
});
