import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { cleanUp, ECHO_SERVICE, everyhop, folder, processesNaming, ROOT, SMALL_MESH, until, up } from "./mesh.ts";

/** Runs `up` in the foreground through `command`; resolves to the process once the mesh is ready. */
async function foreground(t: TestContext, dir: string, command: readonly string[]) {
  const [file = "", ...args] = command;
  const child = spawn(file, [...args, "up", dir], { stdio: ["ignore", "pipe", "pipe"], detached: true });
  cleanUp(t, async () => {
    child.kill("SIGKILL");
    await everyhop(["down", dir]);
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    output += chunk;
  });
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  await until("ready", () => /^ready in /m.test(output) || child.exitCode !== null, 60_000);
  assert.match(output, /^ready in /m);
  return { child, closed, output: () => output };
}

const CLI = [process.execPath, join(ROOT, "src/cli/main.ts")];

test("Ctrl-C ends everything, and says so", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const { child, closed, output } = await foreground(t, dir, CLI);
  assert.match(output(), /note: on loopback .* any local process can dial/);
  child.kill("SIGINT");
  assert.equal(await closed, 0);
  assert.match(output(), /all ended/);
  assert.deepEqual(processesNaming(dir), []);
});

test("requests are shown as they are decided", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const { output } = await foreground(t, dir, CLI);
  const mesh = JSON.parse(readFileSync(join(dir, ".everyhop", "mesh.json"), "utf8"));
  await fetch(`http://${mesh.services.web.outbound.echo}/allowed`, { method: "POST" });
  await fetch(`http://${mesh.services.web.outbound.echo}/secret`);
  await until("both are shown", () => output().includes("GET /secret 403"));
  assert.match(output(), /allow {2}test\.example\/ns\/shop\/sa\/web -> echo {2}POST \/allowed 200/);
  assert.match(
    output(),
    /deny {3}test\.example\/ns\/shop\/sa\/web -> echo {2}GET \/secret 403 .*everyhop why [0-9a-f]+/,
  );
});

test("a mesh that is killed takes its processes along, and the next start cleans up", async (t) => {
  // This one starts a process that leaves its session: only its environment tells whose it is.
  const stray = `import { spawn } from "node:child_process";
spawn("sleep", ["1000"], { detached: true, stdio: "ignore" }).unref();${ECHO_SERVICE}`;
  const dir = folder(t, { ...SMALL_MESH, "echo.mjs": stray });
  const first = await up(t, dir);
  const supervisor = JSON.parse(readFileSync(join(first.stateDir, "mesh.json"), "utf8")).supervisorPid;
  process.kill(supervisor, "SIGKILL");
  await until("only strays are left", () => {
    const left = processesNaming(dir).map((pid) => readFileSync(`/proc/${pid}/comm`, "utf8").trim());
    return left.every((name) => name === "sleep");
  });

  const second = await up(t, dir);
  const own = new Set(Object.values(second.services).map(({ pid }) => pid));
  for (const { pid } of Object.values(first.services)) {
    assert(own.has(pid) || !existsSync(`/proc/${pid}`));
  }
  assert.equal((await fetch(`http://${second.services.web?.outbound.echo}/allowed`, { method: "POST" })).status, 200);
  assert.equal((await everyhop(["down", dir])).code, 0);
  assert.deepEqual(processesNaming(dir), []);
});

test("`down` cleans up after a mesh that was killed", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const mesh = await up(t, dir);
  process.kill(mesh.supervisorPid, "SIGKILL");
  assert.equal((await everyhop(["down", dir])).code, 0);
  assert.deepEqual(processesNaming(dir), []);
  assert.equal(existsSync(join(mesh.stateDir, "mesh.json")), false);
});

test("killing the launcher ends the mesh", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const { child } = await foreground(t, dir, [join(ROOT, "bin/everyhop.js")]);
  child.kill("SIGKILL");
  await until("all of it is gone", () => processesNaming(dir).length === 0);
  // And at once the next one can start, though the last may still be ending.
  await up(t, dir);
});

test("a service that dies later is told, loses its identity, and the rest runs on", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const { output } = await foreground(t, dir, CLI);
  const file = join(dir, ".everyhop", "mesh.json");
  const mesh = JSON.parse(readFileSync(file, "utf8"));
  process.kill(mesh.services.echo.pid, "SIGKILL");
  await until("it is told", () => /service `echo` was ended by SIGKILL/.test(output()));
  assert.equal(JSON.parse(readFileSync(file, "utf8")).services.echo.exited.signal, "SIGKILL");
  await until("its sidecar has no identity", async () => {
    const { status } = await fetch(mesh.services.echo.metrics.replace("/metrics", "/readyz"));
    return status === 503;
  });
  assert.equal((await fetch(mesh.services.web.metrics.replace("/metrics", "/readyz"))).status, 200);
});

test("a sidecar that dies is started again and serves", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const mesh = await up(t, dir);
  const sidecar = processesNaming(join(dir, ".everyhop/sidecars/echo/proxy.yaml"))[0];
  assert(sidecar !== undefined);
  process.kill(sidecar, "SIGKILL");
  await until("it answers again", async () => {
    const answer = await fetch(`http://${mesh.services.web?.outbound.echo}/allowed`, { method: "POST" });
    return answer.status === 200;
  });
});
