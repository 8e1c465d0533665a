/** What README.md tells a new user to do, done: in a copy of the sources as a clone would have them, command by command. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { peer, skipWithout, without } from "../peers.ts";
import { readmeBlocks, readmeCommand } from "../readme.ts";

const ROOT = join(import.meta.dirname, "../..");
const INSTALL_AND_START_MS = 220_000;
const NOBODY = 65_534;

let clone = "";

/** A user's environment: none of this run's npm and test variables; packages come from npm's cache where it has them. */
function environment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_|EVERYHOP_|SPIFFE_)/i.test(name));
  const path = (process.env.PATH ?? "").split(":").filter((folder) => !folder.includes("node_modules"));
  return { ...Object.fromEntries(kept), PATH: path.join(":"), npm_config_prefer_offline: "true" };
}

/** The working tree as git would hand it out, ignored files left behind. */
function copySources(): string {
  const folder = mkdtempSync(join(tmpdir(), "everyhop-clone-"));
  chmodSync(folder, 0o755);
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: ROOT });
  for (const file of listed.toString().split("\0").filter(Boolean)) {
    if (lstatSync(join(ROOT, file), { throwIfNoEntry: false }) !== undefined && file !== "node_modules") {
      cpSync(join(ROOT, file), join(folder, file), { verbatimSymlinks: true });
    }
  }
  return folder;
}

/** Starts a command in a process group of its own, as a terminal does; resolves once it says that the mesh is ready. */
function startMesh(command: string, uid?: number): Promise<ChildProcess> {
  const user = uid === undefined ? {} : { uid, gid: uid };
  const child = spawn("bash", ["-c", command], {
    cwd: clone,
    env: { ...environment(), ...(uid === undefined ? {} : { HOME: clone }) },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    ...user,
  });
  let said = "";
  return new Promise((resolve, reject) => {
    const listen = (chunk: Buffer): void => {
      said += chunk.toString();
      if (/^ready in [\d.]+ s/m.test(said)) {
        resolve(child);
      }
    };
    child.stdout.on("data", listen);
    child.stderr.on("data", listen);
    child.once("exit", (code) => reject(new Error(`\`${command}\` ended with ${code}:\n${said}`)));
    setTimeout(() => reject(new Error(`\`${command}\` is not ready:\n${said}`)), INSTALL_AND_START_MS).unref();
  });
}

/** Ctrl-C. The shell ends when all that it started has ended. */
async function interrupt(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once("exit", resolve));
  process.kill(-(child.pid as number), "SIGINT");
  await ended;
}

/** Processes whose command line or folder is in the clone. */
function processesLeft(): string[] {
  const left: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      if (line.includes(clone)) {
        left.push(`${pid}: ${line}`);
      }
    } catch {
      // It has ended meanwhile.
    }
  }
  return left;
}

function nothingIsLeft(): void {
  assert.deepEqual(processesLeft(), []);
  for (const name of ["mesh.json", "admin.sock", "run"]) {
    assert.equal(existsSync(join(clone, "examples/payments/.everyhop", name)), false, `${name} is left behind`);
  }
}

function shell(script: string): string {
  const ran = spawnSync("bash", ["-c", script], { cwd: clone, env: environment(), encoding: "utf8", timeout: 120_000 });
  assert.equal(ran.status, 0, `${script}\n${ran.stdout}${ran.stderr}`);
  return ran.stdout;
}

describe("README", { skip: without("curl") }, () => {
  before(() => {
    clone = copySources();
  });
  after(() => {
    if (clone !== "") {
      rmSync(clone, { recursive: true, force: true });
    }
  });

  test("the first command installs and starts the mesh, the tour works, Ctrl-C leaves nothing", async () => {
    const mesh = await startMesh(readmeCommand("start"));
    try {
      tour();
    } finally {
      await interrupt(mesh);
    }
    nothingIsLeft();
  });

  test("it starts again, as an ordinary user", async (t) => {
    if (skipWithout(t, "root")) {
      return;
    }
    execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, clone]);
    const mesh = await startMesh("npm start", NOBODY);
    await interrupt(mesh);
    nothingIsLeft();
    execFileSync("chown", ["-R", "0:0", clone]);
  });

  test("isolated, as root", async (t) => {
    if (skipWithout(t, "netns")) {
      return;
    }
    const mesh = await startMesh(readmeCommand("isolate").replace(/^sudo /, ""));
    await interrupt(mesh);
    nothingIsLeft();
  });
});

/** Each block in a shell of its own, after the lines that the first one sets it up with. */
function tour(): void {
  const [first, ...rest] = readmeBlocks().filter(({ name }) => name === "tour" || name === "why" || name === "attack");
  const setUp = (first?.text ?? "").split("\n").filter((line) => /^(alias|cd) /.test(line));
  const run = (text: string): string => shell(["shopt -s expand_aliases", ...setUp, text].join("\n"));
  const outputs: string[] = [shell(`shopt -s expand_aliases\n${first?.text ?? ""}`)];
  let denial = "ID";
  for (const { text } of rest) {
    const output = run(text.replace(/\bID\b/, denial));
    denial = /^x-everyhop-denial: (\S+)/im.exec(output)?.[1] ?? denial;
    outputs.push(output);
  }
  const [status, paid, denied, why, refused, killed, attack] = outputs as [
    string,
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  assert.match(status, /5 of 5 sidecars in sync/);
  assert.match(paid, /"amount":1250/);
  assert.match(denied, /^HTTP\/1\.1 403 /);
  assert.match(denied, /RBAC: access denied/);
  assert.match(why, /spiffe:\/\/example\.com\/ns\/office\/sa\/printer/);
  assert.match(why, /production\/payment-service/);
  assert.match(refused, /authz-payment-service\.yaml:\d+:\d+: .*mehtods/);
  assert.match(refused, /did you mean `methods`/);
  assert.match(killed, /confirmed by 5 of 5/);
  assert.match(killed, /restored/);
  assert.notEqual(attack, "");
  assert.equal(peer("curl") !== null, true);
}
