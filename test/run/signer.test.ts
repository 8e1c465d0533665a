import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Clock } from "../../src/core/base/clock.ts";
import { parseTrustDomain } from "../../src/core/spiffe/id.ts";
import { testKey } from "../../src/core/x509/fixture.ts";
import { Authority } from "../../src/identity/authority/authority.ts";
import { RecordingJournal } from "../../src/identity/authority/fixture.ts";
import type { SignerLink, SignerState } from "../../src/identity/authority/signer-link.ts";
import type { Setup } from "../../src/identity/intent/intent.ts";
import { silentLog } from "../../src/io/log.ts";
import { processStat } from "../../src/io/process.ts";
import { testToken } from "../../src/io/softhsm-fixture.ts";
import { memoryStateFile } from "../../src/io/state-file.ts";
import { startServer } from "../../src/run/server.ts";
import { readServerConfig, type ServerConfig } from "../../src/run/server-config.ts";
import { processSigner } from "../../src/run/server-signer.ts";
import { skipWithout } from "../peers.ts";

function configIn(t: TestContext, more = ""): { readonly config: ServerConfig; readonly dir: string } {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-signer-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, "server.yaml");
  const addresses = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
  writeFileSync(file, `trustDomain: example.com\ndataDir: data\nlogLevel: error\n${addresses}${more}`);
  mkdirSync(join(dir, "data"), { mode: 0o700 });
  return { config: readServerConfig(file), dir };
}

const logDir = ({ dataDir }: ServerConfig): string => join(dataDir, "signer-log");

async function open(t: TestContext, config: ServerConfig): Promise<SignerLink> {
  const { keys, ceilings, trustDomain } = config;
  const link = await processSigner(clock, silentLog)({ trustDomain, keys, ceilings, logDir: logDir(config) });
  t.after(() => link.close());
  return link;
}

/** The next state that `wanted` names. */
function until(link: SignerLink, wanted: (state: SignerState) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const unwatch = link.state.watch((state) => {
      if (wanted(state)) {
        unwatch();
        resolve();
      }
    });
  });
}

/** The system's clock, whose timers hold the process: here no listener does. */
const clock: Clock = {
  now: Date.now,
  after(delayMs, fire) {
    const timer = setTimeout(fire, Math.min(delayMs, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  },
};

const request = { spiffeId: "spiffe://example.com/a" as never, entryId: "e", publicKey: { spki: testKey().spki } };
const trustDomain = parseTrustDomain("example.com");

test("the signer is a process with one socket, no rights of ours, and nothing of our environment", async (t) => {
  const { config } = configIn(t);
  process.env.EVERYHOP_TEST_SECRET = "hunter2";
  t.after(() => delete process.env.EVERYHOP_TEST_SECRET);
  const link = await open(t, config);
  const pid = link.pid ?? 0;
  assert.equal(processStat(pid)?.parentPid, process.pid);
  if (process.getuid?.() === 0) {
    assert.doesNotMatch(readFileSync(`/proc/${pid}/environ`, "utf8"), /hunter2|PATH/);
    assert.match(readFileSync(`/proc/${pid}/net/unix`, "utf8"), /Path/);
  }
  assert.match(readFileSync(`/proc/${pid}/cmdline`, "utf8"), /--permission/);
});

test("killed, it is started again with the same keys; meanwhile nothing is issued", async (t) => {
  const { config } = configIn(t);
  const link = await open(t, config);
  const kept = memoryStateFile();
  const authority = await Authority.open({
    trustDomain,
    signer: link,
    kept,
    journal: new RecordingJournal(),
    clock,
  });
  t.after(() => authority.close());
  const { id } = authority.x509.active();
  await authority.issueX509Svid(request);
  const down = until(link, ({ running }) => !running);
  process.kill(link.pid ?? 0, "SIGKILL");
  const waiting = authority.issueX509Svid(request);
  await assert.rejects(waiting, { code: "unavailable", message: /the signer is not running/ });
  await down;
  await assert.rejects(authority.issueX509Svid(request), { code: "unavailable" });
  await until(link, ({ running }) => running);
  assert.equal(link.state.value.restarts, 1);
  assert.equal((await authority.issueX509Svid(request)).authorityId, id);
});

test("a server whose signer is away says so in its status, and takes it back once it runs again", async (t) => {
  const { config } = configIn(t);
  const links: SignerLink[] = [];
  const openSigner = async (setup: Setup) => {
    const link = await processSigner(clock, silentLog)(setup);
    links.push(link);
    return link;
  };
  const server = await startServer(config, { log: silentLog, openSigner });
  t.after(() => server.close());
  const link = links[0] as SignerLink;
  const down = until(link, ({ running }) => !running);
  process.kill(link.pid ?? 0, "SIGKILL");
  await down;
  const [problem] = (await server.control.status()).problems;
  assert.equal(problem?.code, "unavailable");
  assert.match(problem?.message ?? "", /the signer does not run, so nothing is issued/);
  await until(link, ({ running }) => running);
  assert.deepEqual((await server.control.status()).problems, []);
});

test("keys in memory end with it: another CA takes over at once, and what the old one signed stays valid", async (t) => {
  const { config } = configIn(t, "keyManager: {kind: memory}\n");
  const link = await open(t, config);
  const kept = memoryStateFile();
  const authority = await Authority.open({
    trustDomain,
    signer: link,
    kept,
    journal: new RecordingJournal(),
    clock,
  });
  t.after(() => authority.close());
  const { id } = authority.x509.active();
  const again = until(link, ({ running, restarts }) => running && restarts === 1);
  process.kill(link.pid ?? 0, "SIGKILL");
  await again;
  await authority.x509.settled();
  assert.notEqual((await authority.issueX509Svid(request)).authorityId, id);
  assert.ok(authority.bundle.value.x509Authorities.length >= 2, "the old CA is still believed");
});

test("keys of a server of an earlier version are taken over", async (t) => {
  const { config } = configIn(t);
  const first = await startServer(config, { log: silentLog });
  const before = readFileSync(first.ready.trustBundle, "utf8");
  await first.close();
  const { dataDir } = config;
  // As it was: the record among the keys, without certificates.
  const record = JSON.parse(readFileSync(join(dataDir, "authorities.json"), "utf8"));
  const slots = (of: { published: unknown }[]) => of.map(({ published: _, ...slot }) => slot);
  const old = { format: 1, sequence: record.sequence, x509: slots(record.x509), jwt: slots(record.jwt) };
  writeFileSync(join(dataDir, "keys", "authorities.json"), JSON.stringify(old), { mode: 0o600 });
  rmSync(join(dataDir, "authorities.json"));
  rmSync(logDir(config), { recursive: true });
  const second = await startServer(config, { log: silentLog });
  assert.equal(readFileSync(second.ready.trustBundle, "utf8"), before);
  await second.close();
});

test("a server with a log that was changed, or whose keys are gone, does not start, and says what to do", async (t) => {
  const { config } = configIn(t);
  await (await startServer(config, { log: silentLog })).close();
  const file = join(logDir(config), "signed-0000000000000000.jsonl");
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replace("x509-ca", "x509-cb"));
  await assert.rejects(startServer(config, { log: silentLog }), {
    code: "storage-failed",
    message: /not as it was written/,
  });
  writeFileSync(file, text);
  renameSync(join(config.dataDir, "keys"), join(config.dataDir, "keys.away"));
  await assert.rejects(startServer(config, { log: silentLog }), {
    code: "storage-failed",
    message: /signing key .* is missing/,
  });
});

test("the keys are in a token: found again after a restart, and a wrong PIN is said", async (t) => {
  if (skipWithout(t, "softhsm")) {
    return;
  }
  const { module, tokenLabel, pinFile } = testToken(t);
  const { config } = configIn(
    t,
    `keyManager: {kind: pkcs11, module: ${module}, tokenLabel: ${tokenLabel}, pinFile: ${pinFile}}\n`,
  );
  const first = await startServer(config, { log: silentLog });
  const before = readFileSync(first.ready.trustBundle, "utf8");
  await first.close();
  const second = await startServer(config, { log: silentLog });
  assert.equal(readFileSync(second.ready.trustBundle, "utf8"), before);
  await second.close();
  writeFileSync(pinFile, "999999");
  await assert.rejects(startServer(config, { log: silentLog }), {
    code: "permission-denied",
    message: /the PIN is wrong/,
  });
});

const MAIN = new URL("../../src/cli/main.ts", import.meta.url).pathname;

/** `everyhop server` in a process; its first line has come. */
async function serverProcess(t: TestContext, dir: string): Promise<ChildProcess> {
  const args = [MAIN, "server", "--config", join(dir, "server.yaml"), "--exit-with-stdin"];
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "ignore"] });
  t.after(() => child.kill("SIGKILL"));
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    child.once("exit", (code) => reject(new Error(`exited with ${code}`)));
  });
  return child;
}

/** The child of `pid` that runs the signer. */
function signerOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);
  return children.find((child) => readFileSync(`/proc/${child}/cmdline`, "utf8").includes("signer.ts")) ?? 0;
}

test("no signer is left behind, however its server ends", async (t) => {
  const { dir } = configIn(t);
  for (const end of ["SIGKILL", "SIGTERM", "stdin"] as const) {
    const child = await serverProcess(t, dir);
    const signer = signerOf(child.pid ?? 0);
    assert.ok(signer > 0);
    const exited = new Promise((resolve) => child.once("exit", resolve));
    if (end === "stdin") {
      child.stdin?.end();
    } else {
      child.kill(end);
    }
    await exited;
    while (![null, "Z", "X"].includes(processStat(signer)?.state ?? null)) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
});
