import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { without } from "../peers.ts";
import { cleanUp, everyhop, folder, processesNaming, SMALL_MESH, up } from "./mesh.ts";

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly issues?: readonly { readonly file?: string; readonly line?: number; readonly message: string }[];
}

/** Starts what must not start: gives the error, after checking that nothing was left half-started. */
async function refused(t: TestContext, dir: string, exitCode: number, flags: readonly string[] = []): Promise<Failure> {
  cleanUp(t, () => everyhop(["down", dir]));
  const { code, stdout } = await everyhop(["up", dir, "--detach", "--json", ...flags]);
  const { error } = JSON.parse(stdout) as { error: Failure };
  assert.equal(code, exitCode, stdout);
  assert.deepEqual(processesNaming(dir), []);
  for (const name of ["mesh.json", "run.json", "admin.sock"]) {
    assert.equal(existsSync(join(dir, ".everyhop", name)), false, name);
  }
  return error;
}

const yaml = (change: (text: string) => string): Record<string, string> => ({
  ...SMALL_MESH,
  "everyhop.yaml": change(SMALL_MESH["everyhop.yaml"] ?? ""),
});

test("what the mesh file says wrongly is told with its place, before anything starts", async (t) => {
  const missing = await refused(t, folder(t), 2);
  assert.deepEqual([missing.code, /everyhop\.yaml/.test(missing.message)], ["file-missing", true]);

  const dir = folder(
    t,
    yaml((text) => text.replace("port: 8080", "prot: 8080\n    selectors: [nothing]").replace("policies/", "polices/")),
  );
  const many = await refused(t, dir, 2);
  assert.equal(many.code, "config-invalid");
  assert((many.issues?.length ?? 0) >= 3, JSON.stringify(many.issues));
  assert(many.issues?.every(({ file, line }) => file === join(dir, "everyhop.yaml") && (line ?? 0) > 0));
  assert.equal(existsSync(join(dir, ".everyhop")), false);

  const noProgram = await refused(
    t,
    folder(
      t,
      yaml((text) =>
        text.replace("[node, echo.mjs]", "[no-such-program]").replace("[node, echo.mjs]", "[node, gone.mjs]"),
      ),
    ),
    2,
  );
  assert.equal(noProgram.code, "file-missing");
  assert.deepEqual(
    noProgram.issues?.map(({ line, message }) => [line, message]),
    [
      [7, "there is no program `no-such-program` in PATH"],
      [12, "`gone.mjs`: there is no such file or folder"],
    ],
  );
});

test("a policy that is not valid is refused with its place and what was meant", async (t) => {
  const policies = SMALL_MESH["policies/policies.yaml"]?.replace("principals", "princpals") ?? "";
  const error = await refused(t, folder(t, { ...SMALL_MESH, "policies/policies.yaml": policies }), 2);
  assert.equal(error.issues?.[0]?.file, "policies/policies.yaml");
  assert.equal(error.issues?.[0]?.line, 13);
  assert.match(error.hint ?? "", /did you mean `principals`/);
});

test("a port that is taken is told with its place", async (t) => {
  const taken = await new Promise<Server>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => resolve(server));
  });
  cleanUp(t, () => taken.close());
  const { port } = taken.address() as { port: number };
  const dir = folder(
    t,
    yaml((text) => text.replace("port: 8080", `port: 8080\n    appPort: ${port}`)),
  );
  const error = await refused(t, dir, 2);
  assert.equal(error.code, "port-in-use");
  assert.match(error.message, new RegExp(`everyhop\\.yaml:9:\\d+: services\\.echo\\.appPort: port ${port} is in use`));
});

test("a service that exits, or never listens, ends the start with its last words", async (t) => {
  const exits = await refused(
    t,
    folder(t, { ...SMALL_MESH, "echo.mjs": 'throw new Error("no database password");' }),
    5,
  );
  assert.equal(exits.code, "service-failed");
  assert.match(exits.message, /service `(echo|web)` exited with code 1 before it listened on 127\.0\.0\.1:\d+/);
  assert.match(exits.message, /no database password/);
  assert.match(exits.hint ?? "", /node echo\.mjs/);

  const dir = folder(t, {
    ...yaml((text) => text.replaceAll("port: 8080", "port: 8080\n    startTimeout: 1s")),
    "echo.mjs": 'console.log("warming up"); setInterval(() => {}, 1000);',
  });
  const silent = await refused(t, dir, 5);
  assert.match(silent.message, /does not listen on 127\.0\.0\.1:\d+ after 1s; its last lines:\n {4}warming up/);
  assert.match(silent.hint ?? "", /\$HOST:\$PORT/);
});

test("a database file that is broken is told with the file and the next step", async (t) => {
  const dir = folder(t, SMALL_MESH);
  mkdirSync(join(dir, ".everyhop", "server"), { recursive: true });
  chmodSync(join(dir, ".everyhop"), 0o700);
  chmodSync(join(dir, ".everyhop", "server"), 0o700);
  writeFileSync(
    join(dir, ".everyhop", "server", "server.db"),
    "this is no database, whatever its name says\n".repeat(200),
    {
      mode: 0o600,
    },
  );
  const error = await refused(t, dir, 6);
  assert.equal(error.code, "storage-failed");
  assert.match(error.message, /server\.db/);
  assert.notEqual(error.hint ?? "", "");
});

test("a state folder that cannot be written is told", async (t) => {
  const dir = folder(t, { ...SMALL_MESH, "in-the-way": "" });
  const file = await refused(t, dir, 6, ["--state", join(dir, "in-the-way", "state")]);
  assert.equal(file.code, "storage-failed");
  assert.match(file.hint ?? "", /--state DIR/);
});

test("a dangling or foreign `.everyhop` link is replaced", async (t) => {
  const dir = folder(t, SMALL_MESH);
  symlinkSync(join(dir, "gone"), join(dir, ".everyhop"));
  const mesh = await up(t, dir);
  assert.equal(mesh.stateDir, join(dir, ".everyhop"));
});

test("a full disk is told, and nothing is left running", { skip: without("netns") }, async (t) => {
  const dir = folder(t, SMALL_MESH);
  const state = join(dir, "small");
  mkdirSync(state);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=96k", "tmpfs", state]);
  cleanUp(t, () => {
    execFileSync("umount", ["-l", state]);
    rmSync(state, { recursive: true, force: true });
  });
  const error = await refused(t, dir, 6, ["--state", state]);
  assert.equal(error.code, "storage-failed");
  assert.match(error.message, /disk is full|full/i);
  assert.notEqual(error.hint ?? "", "");
});

test("unknown commands and flags are usage errors", async () => {
  for (const args of [["up", "--detatch"], ["exec"], ["up", "a", "b"]]) {
    assert.equal((await everyhop(args)).code, 2, args.join(" "));
  }
});
