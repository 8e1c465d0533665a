/** What an attacker does with real processes: races, names and numbers of her own. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import { peer, skipWithout } from "../../../../test/peers.ts";
import { parseCgroups, processCgroupText } from "../../../io/cgroup.ts";
import { findContainer } from "./container.ts";
import { attest, endAll, run, says } from "./fixture.ts";
import { findUnit } from "./systemd/unit.ts";
import { unixAttestor } from "./unix/unix.ts";

const dir = realpathSync(mkdtempSync(join(tmpdir(), "everyhop-attack-")));
after(() => rmSync(dir, { recursive: true, force: true }));
afterEach(endAll);

const node = realpathSync(process.execPath);
const sleep = realpathSync("/bin/sleep");
const sha256 = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

test("a process that becomes one program and another all the time is never a mixture of both", async () => {
  const shell = realpathSync("/bin/sh");
  const programs = ["one", "two"].map((name) => join(dir, name));
  for (const [index, program] of programs.entries()) {
    copyFileSync(shell, program);
    appendFileSync(program, "x".repeat(index + 1));
    chmodSync(program, 0o755);
  }
  const digests = new Map(programs.map((program) => [program, sha256(program)]));
  const script = join(dir, "flip.sh");
  writeFileSync(script, `case $1 in 1) exec ${programs[1]} "$0" 2;; *) exec ${programs[0]} "$0" 1;; esac\n`);
  const { reference } = await run(programs[0] as string, [script, "1"]);
  const attestors = [unixAttestor(() => Date.now())];
  for (let time = 0; time < 150; time++) {
    const found = await attest(reference, attestors).catch((error: { code?: string }) => {
      assert.match(error.code ?? String(error), /^(permission-denied|not-found)$/);
      return null;
    });
    const of = (prefix: string) => found?.selectors.find((one) => one.startsWith(prefix))?.slice(prefix.length);
    const [path, digest] = [of("unix:path:"), of("unix:sha256:")];
    if (path !== undefined && digest !== undefined) {
      assert.equal(digest, digests.get(path), path);
    }
  }
});

test("a command line of any length and content names no script by accident, and holds nobody up", async () => {
  const lines = [
    ["-e", "console.log('ready'); setInterval(() => {}, 1000)", "x".repeat(100_000)],
    ["-e", "console.log('ready'); setInterval(() => {}, 1000)", "\n", "--", sleep, "\u001b[2J"],
  ];
  for (const args of lines) {
    const { child, reference } = await run(node, args);
    await says(child, "ready");
    const { selectors } = await attest(reference);
    assert.ok(!selectors.some((selector) => selector.startsWith("unix:script:")), String(args[1]));
    assert.ok(selectors.includes(`unix:path:${node}` as never));
  }
});

/** Runs inside a PID namespace of its own, where the next pid is its choice. Says `reused` and what became of each attestation. */
const REUSE = `
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { closePidfd, openPidfd } from ${JSON.stringify(join(import.meta.dirname, "../../../io/peer.ts"))};
import { processImage, processStat, processStatus } from ${JSON.stringify(join(import.meta.dirname, "../../../io/process.ts"))};
import { attest } from ${JSON.stringify(join(import.meta.dirname, "fixture.ts"))};
const start = async () => { const child = spawn(process.argv[2], ["60"]); await once(child, "spawn"); return child; };
for (let attempt = 0; attempt < 200; attempt++) {
  const victim = await start();
  const pid = victim.pid;
  const { uid, gid } = processStatus(pid);
  const held = { pid, pidfd: openPidfd(pid), caller: { pid, uid, gid, image: processImage(pid) } };
  await attest(held);
  const startTime = processStat(pid).startTime;
  victim.kill("SIGKILL");
  await once(victim, "exit");
  writeFileSync("/proc/sys/kernel/ns_last_pid", String(pid - 1));
  const attacker = await start();
  if (attacker.pid === pid && processStat(pid).startTime !== startTime) {
    const outcome = (reference) => attest(reference).then(() => "attested", (error) => error.message);
    console.log(JSON.stringify(["reused", await outcome(held), await outcome({ ...held, pidfd: null })]));
    attacker.kill("SIGKILL");
    closePidfd(held.pidfd);
    process.exit(0);
  }
  attacker.kill("SIGKILL");
  closePidfd(held.pidfd);
}
console.log(JSON.stringify(["never"]));
process.exit(0);
`;

test("a pid that comes around to another process is not the one that called, with a pidfd or without", (t) => {
  if (skipWithout(t, "pid-namespaces")) {
    return;
  }
  const script = join(dir, "reuse.mjs");
  writeFileSync(script, REUSE);
  const unshare = peer("pid-namespaces") ?? assert.fail();
  const output = execFileSync(unshare, ["--pid", "--fork", "--mount-proc", node, script, sleep], { encoding: "utf8" });
  const [reused, withPidfd, without] = JSON.parse(output.trim().split("\n").at(-1) ?? "[]") as string[];
  assert.equal(reused, "reused");
  assert.match(withPidfd ?? "", /is gone|became another program/);
  assert.match(without ?? "", /became another program since it connected/);
});

test("groups that a process makes below its own, with another container's name, are not believed; its namespace changes nothing", async (t) => {
  if (skipWithout(t, "cgroups")) {
    return;
  }
  const victim = "aff34703e5e1f89443e9a1bffcc80f43f74d4808a2dd22c8f88c08547b323934";
  const root = peer("cgroups") ?? assert.fail();
  const own = `everyhop-${process.pid}.service`;
  const crafted = join(own, `docker-${victim}.scope`);
  mkdirSync(join(root, crafted), { recursive: true });
  t.after(async () => {
    endAll();
    while (readFileSync(join(root, crafted, "cgroup.procs"), "utf8") !== "") {
      await new Promise((resolve) => setImmediate(resolve));
    }
    rmdirSync(join(root, crafted));
    rmdirSync(join(root, own));
  });
  const { child, pid } = await run("sh", [
    "-c",
    `echo $$ > ${join(root, crafted, "cgroup.procs")} && exec unshare --cgroup sh -c 'cat /proc/self/cgroup; echo ready; exec ${sleep} 60'`,
  ]);
  let seen = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    seen += chunk.toString();
  });
  await says(child, "ready");
  assert.ok(!seen.includes(victim), "the process itself sees its own group as the root");
  const cgroups = parseCgroups(processCgroupText(pid)).filter(({ controllers }) => controllers === "");
  assert.ok(cgroups[0]?.path.endsWith(crafted), "and we see where it is");
  assert.equal(findContainer(cgroups, parseCgroups(processCgroupText("self"))), null);
  assert.equal(findUnit(cgroups)?.id, own);
});
