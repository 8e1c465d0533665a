import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import { without } from "../../../../../test/peers.ts";
import { silentLog } from "../../../../io/log.ts";
import { attestWorkload } from "../attest.ts";
import { attest, endAll, exited, run, says } from "../fixture.ts";
import { unixAttestor } from "./unix.ts";

const dir = realpathSync(mkdtempSync(join(tmpdir(), "everyhop-unix-")));
after(() => rmSync(dir, { recursive: true, force: true }));
afterEach(endAll);

const node = realpathSync(process.execPath);
const sleep = realpathSync("/bin/sleep");
const sha256 = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");
const STAY = "process.stdout.write('ready\\n'); setInterval(() => {}, 1000);";

test("a process has the selectors of its user, program, parent and instance", async () => {
  const { pid, startTime, reference } = await run(sleep, ["60"]);
  const { selectors } = await attest(reference);
  const has = (selector: string) => assert.ok(selectors.includes(selector as never), `${selector} in ${selectors}`);
  has(`unix:uid:${process.getuid?.()}`);
  has(`unix:gid:${process.getgid?.()}`);
  has(`unix:user:${execFileSync("id", ["-un"], { encoding: "utf8" }).trim()}`);
  has(`unix:group:${execFileSync("id", ["-gn"], { encoding: "utf8" }).trim()}`);
  has(`unix:path:${sleep}`);
  has(`unix:sha256:${sha256(sleep)}`);
  has(`unix:process:${pid}:${startTime}`);
  has(`unix:parent:path:${node}`);
  has(`unix:parent:sha256:${sha256(node)}`);
  const own = readFileSync("/proc/self/stat", "utf8").split(") ")[1]?.split(" ")[19];
  has(`unix:parent:process:${process.pid}:${own}`);
  assert.ok(!selectors.some((selector) => selector.startsWith("unix:script:")));
});

test("an interpreter has the selectors of its script, wherever it was started from", async () => {
  const script = join(dir, "service.mjs");
  writeFileSync(script, STAY);
  symlinkSync(script, join(dir, "link.mjs"));
  for (const [args, cwd, extra] of [
    [[script], "/", []],
    [["./service.mjs"], dir, []],
    [["--enable-source-maps", "link.mjs"], dir, [`unix:script:${join(dir, "link.mjs")}`]],
  ] as const) {
    const { child, reference } = await run(node, args, { cwd });
    await says(child, "ready");
    const { selectors } = await attest(reference);
    const scripts = selectors.filter((selector) => selector.startsWith("unix:script:"));
    assert.deepEqual(
      scripts,
      [...extra, `unix:script:${script}`, `unix:script:sha256:${sha256(script)}`].sort() as never,
    );
  }
});

test("code in the arguments is no script", async () => {
  const { child, reference } = await run(node, ["-e", STAY, "service.mjs"], { cwd: dir });
  await says(child, "ready");
  const { selectors } = await attest(reference);
  assert.ok(!selectors.some((selector) => selector.startsWith("unix:script:")));
});

test("a program's own name and title change nothing about what it is", async () => {
  const program = join(dir, "x) S 1 1 (y");
  copyFileSync(sleep, program);
  chmodSync(program, 0o755);
  const { pid, startTime, reference } = await run(program, ["60"], { argv0: "payment-service" });
  const { selectors } = await attest(reference);
  assert.ok(selectors.includes(`unix:path:${program}` as never));
  assert.ok(selectors.includes(`unix:process:${pid}:${startTime}` as never));
});

test("a title forged as another script's is believed for the script alone: the instance selector is not his", async () => {
  const victim = join(dir, "payments.mjs");
  writeFileSync(victim, STAY);
  const registered = await run(node, [victim]);
  await says(registered.child, "ready");
  const forged = `${node}\\0${victim}\\0`;
  const attacker = await run(node, [
    "-e",
    `process.title = ${JSON.stringify(forged)}.replaceAll("\\\\0", "\\0");${STAY}`,
  ]);
  await says(attacker.child, "ready");
  const { selectors } = await attest(attacker.reference);
  assert.ok(!selectors.includes(`unix:process:${registered.pid}:${registered.startTime}` as never));
  assert.ok(selectors.includes(`unix:process:${attacker.pid}:${attacker.startTime}` as never));
});

test("a child of the registered process is not that process", async () => {
  const { child, pid, startTime } = await run(node, [
    "-e",
    `const c = require("node:child_process").spawn(${JSON.stringify(sleep)}, ["60"]);
     c.once("spawn", () => console.log("child " + c.pid + ".")); setInterval(() => {}, 1000);`,
  ]);
  let text = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  await says(child, ".");
  const forked = Number(/child (\d+)/.exec(text)?.[1]);
  const { selectors } = await attest({ pid: forked, pidfd: null, caller: null });
  assert.ok(!selectors.includes(`unix:process:${pid}:${startTime}` as never));
  assert.ok(selectors.includes(`unix:parent:process:${pid}:${startTime}` as never));
  process.kill(forked, "SIGKILL");
});

test("an upgrade on disk does not take a running program's path away, nor give it to the new file's", async () => {
  const program = join(dir, "upgraded");
  copyFileSync(sleep, program);
  const old = await run(program, ["60"]);
  const attestors = [unixAttestor(() => Date.now())];
  const before = await attest(old.reference, attestors);
  assert.ok(before.selectors.includes(`unix:path:${program}` as never));
  copyFileSync(sleep, `${program}.new`);
  renameSync(`${program}.new`, program);
  assert.match(readlinkSync(`/proc/${old.pid}/exe`), /deleted/);
  const after = await attest(old.reference, attestors);
  assert.ok(after.selectors.includes(`unix:path:${program}` as never));
  const late = await attest(old.reference);
  assert.ok(!late.selectors.some((selector) => selector.startsWith("unix:path:")), "an agent that never saw the file");
});

test("a deleted program has no path, whatever file has the name the kernel then shows", async () => {
  const program = join(dir, "gone");
  copyFileSync(sleep, program);
  const { reference } = await run(program, ["60"]);
  rmSync(program);
  copyFileSync(sleep, `${program} (deleted)`);
  const { selectors } = await attest(reference);
  assert.ok(!selectors.some((selector) => selector.startsWith("unix:path:")), selectors.join());
  assert.ok(selectors.includes(`unix:sha256:${sha256(sleep)}` as never));
});

test("a program at the same path in another mount namespace is not that program", {
  skip: without("root"),
}, async () => {
  const target = join(dir, "payments");
  copyFileSync(sleep, target);
  const evil = join(dir, "evil");
  copyFileSync(realpathSync("/bin/cat"), evil);
  const { child, pid, reference } = await run("unshare", [
    "--mount",
    "sh",
    "-c",
    `mount --bind ${evil} ${target} && echo ready && exec ${target}`,
  ]);
  await says(child, "ready");
  while (!readlinkSync(`/proc/${pid}/exe`).startsWith(dir)) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(readlinkSync(`/proc/${pid}/exe`), target);
  const { selectors } = await attest(reference);
  assert.ok(!selectors.includes(`unix:path:${target}` as never), selectors.join());
});

test("another user's process is told by its user", { skip: without("root") }, async () => {
  const { reference } = await run(sleep, ["60"], { uid: 12_345, gid: 23_456 });
  const { selectors } = await attest(reference);
  assert.ok(selectors.includes("unix:uid:12345" as never) && selectors.includes("unix:gid:23456" as never));
  assert.ok(!selectors.some((selector) => /unix:(uid|gid):0/.test(selector)));
});

test("dear selectors are left out where no entry asks for them", async () => {
  const { reference } = await run(sleep, ["60"]);
  const { selectors } = await attestWorkload(reference, [unixAttestor(() => Date.now())], () => false, silentLog);
  assert.ok(!selectors.some((selector) => selector.includes("sha256")));
  assert.ok(selectors.includes(`unix:path:${sleep}` as never));
});

test("a process that ended has no selectors", async () => {
  const { child, reference } = await run(sleep, ["60"]);
  child.kill("SIGKILL");
  await exited(child);
  await assert.rejects(attest(reference), /is gone/);
});
