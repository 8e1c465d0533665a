import assert from "node:assert/strict";
import { readlinkSync, realpathSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import { without } from "../../../../test/peers.ts";
import { silentLog } from "../../../io/log.ts";
import { closePidfd, openPidfd, peerCredentials, peerPidfd } from "../../../io/peer.ts";
import { processImage, processStat } from "../../../io/process.ts";
import { attestWorkload, type WorkloadAttestor } from "./attest.ts";
import { attest, endAll, exited, run } from "./fixture.ts";

afterEach(endAll);

const sleep = realpathSync("/bin/sleep");

/** An attestor during which `happen` takes place: what an attacker hopes to fit in between. */
function meanwhile(happen: () => Promise<void>): WorkloadAttestor {
  return {
    kind: "test",
    async attest() {
      await happen();
      return ["test:yes"];
    },
  };
}

async function until(condition: () => boolean): Promise<void> {
  const giveUpAt = Date.now() + 5_000;
  while (!condition()) {
    assert.ok(Date.now() < giveUpAt, "in time");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test("a process that exits while it is attested gets nothing", async () => {
  const { child, reference } = await run(sleep, ["60"]);
  const attestor = meanwhile(async () => {
    child.kill("SIGKILL");
    await exited(child);
  });
  await assert.rejects(attest(reference, [attestor]), /is gone/);
});

test("a process that exited and that nobody has waited for yet gets nothing", async () => {
  const { child, pid, reference } = await run("sh", ["-c", `${sleep} 0.01 & echo $!; exec ${sleep} 60`]);
  const zombie = Number(await new Promise((resolve) => child.stdout?.once("data", (data) => resolve(String(data)))));
  await until(() => processStat(zombie)?.state === "Z");
  await assert.rejects(attest({ ...reference, pid: zombie }), /is gone/);
  assert.ok(processStat(pid) !== null);
});

test("a process that becomes another program while it is attested gets nothing", async () => {
  const { child, pid, reference } = await run("sh", ["-c", `read line; exec ${sleep} 60`]);
  const before = processImage(pid);
  const attestor = meanwhile(async () => {
    child.stdin?.write("go\n");
    await until(() => processImage(pid) !== before);
  });
  await assert.rejects(attest(reference, [attestor]), /became another program/);
});

test("a process whose parent changes while it is attested gets nothing", async () => {
  const { child, reference } = await run("sh", ["-c", `${sleep} 60 & echo $!; read line`]);
  const pid = Number(await new Promise((resolve) => child.stdout?.once("data", (data) => resolve(String(data)))));
  // Between fork and exec it is still the shell.
  await until(() => readlinkSync(`/proc/${pid}/exe`) === sleep);
  const attestor = meanwhile(async () => {
    child.kill("SIGKILL");
    await exited(child);
    await until(() => processStat(pid)?.parentPid !== child.pid);
  });
  await assert.rejects(attest({ ...reference, pid }, [attestor]), /changed its parent/);
  process.kill(pid, "SIGKILL");
});

test("a pidfd tells the process from a later one with the same pid", async () => {
  const { child, pid } = await run(sleep, ["60"]);
  const pidfd = openPidfd(pid) as number;
  child.kill("SIGKILL");
  await exited(child);
  const another = await run(sleep, ["60"]);
  // As if the pid had come around to the other process.
  await assert.rejects(attest({ pid: another.pid, pidfd, caller: null }), /is gone/);
  closePidfd(pidfd);
});

/** Accepts one connection of a process started by `connect`, as the agent does. */
async function accepted(connect: (path: string) => Promise<unknown>): Promise<{ socket: Socket; close(): void }> {
  const path = join(tmpdir(), `everyhop-attest-${process.pid}-${Math.random().toString(36).slice(2)}.sock`);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await connect(path);
  return {
    socket: await socket,
    close: () => {
      server.close();
    },
  };
}

const CONNECT = (path: string, then: string) =>
  `const s = require("node:net").connect(${JSON.stringify(path)}, () => { ${then} }); s.on("error", () => {}); setInterval(() => {}, 1000);`;

function callerOf(socket: Socket) {
  const credentials = peerCredentials(socket);
  return {
    pid: credentials.pid,
    pidfd: peerPidfd(socket),
    caller: { ...credentials, image: processImage(credentials.pid) ?? "" },
  };
}

test("a caller is the process that connected, and nothing after that process has gone", async () => {
  let child: Awaited<ReturnType<typeof run>> | undefined;
  const { socket, close } = await accepted(async (path) => {
    child = await run(process.execPath, ["-e", CONNECT(path, "")]);
  });
  const reference = callerOf(socket);
  assert.equal(reference.pid, child?.pid);
  await attest(reference);
  child?.child.kill("SIGKILL");
  await exited((child as NonNullable<typeof child>).child);
  await assert.rejects(attest(reference), /is gone/);
  if (reference.pidfd !== null) {
    closePidfd(reference.pidfd);
  }
  socket.destroy();
  close();
});

test("a caller that keeps its connection over exec is refused: the new program did not ask", async () => {
  const python =
    "import socket,os,sys,time\n" +
    "s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);s.set_inheritable(True)\n" +
    "sys.stdin.readline();os.execv(sys.argv[2],['sleep','60'])\n";
  let child: Awaited<ReturnType<typeof run>> | undefined;
  const { socket, close } = await accepted(async (path) => {
    child = await run("python3", ["-c", python, path, sleep]);
  });
  const reference = callerOf(socket);
  await attest(reference);
  child?.child.stdin?.write("go\n");
  await until(() => processImage(reference.pid) !== reference.caller.image);
  await assert.rejects(attest(reference), /became another program since it connected/);
  assert.equal(socket.destroyed, false);
  socket.destroy();
  close();
});

test("a caller that changes its user is refused", { skip: without("root") }, async () => {
  let child: Awaited<ReturnType<typeof run>> | undefined;
  const { socket, close } = await accepted(async (path) => {
    child = await run(process.execPath, [
      "-e",
      CONNECT(
        path,
        "process.stdin.once('data', () => { process.setgid(4321); process.setuid(1234); console.log('done'); });",
      ),
    ]);
  });
  const reference = callerOf(socket);
  await attest(reference);
  const done = new Promise((resolve) => child?.child.stdout?.once("data", resolve));
  child?.child.stdin?.write("go\n");
  await done;
  await assert.rejects(attest(reference), /changed its user or group since it connected/);
  socket.destroy();
  close();
});

test("what was handed over to a child is still its parent's: with the parent it ends", async () => {
  const python =
    "import socket,os,sys,time\n" +
    "s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n" +
    "if os.fork()==0:\n s.recv(1);os._exit(0)\n" +
    "sys.stdin.readline();os._exit(0)\n";
  let child: Awaited<ReturnType<typeof run>> | undefined;
  const { socket, close } = await accepted(async (path) => {
    child = await run("python3", ["-c", python, path]);
  });
  const reference = callerOf(socket);
  assert.equal(reference.pid, child?.pid);
  child?.child.stdin?.write("go\n");
  await exited((child as NonNullable<typeof child>).child);
  assert.equal(socket.destroyed, false);
  await assert.rejects(attest(reference), /is gone/);
  socket.destroy();
  close();
});

test("an attestor that fails is left out; where all fail that is an error", async () => {
  const { reference } = await run(sleep, ["60"]);
  const broken: WorkloadAttestor = {
    kind: "broken",
    async attest() {
      throw new Error("its backend is down");
    },
  };
  const { selectors } = await attest(reference, [broken, meanwhile(async () => {})]);
  assert.deepEqual(selectors, ["test:yes"]);
  await assert.rejects(
    attestWorkload(reference, [broken], () => true, silentLog),
    /its backend is down/,
  );
});

test("a selector that no entry could have is left out", async () => {
  const { reference } = await run(sleep, ["60"]);
  const odd: WorkloadAttestor = {
    kind: "odd",
    attest: async () => ["x", `unix:path:/${"y".repeat(5_000)}`, "unix:ok:1"],
  };
  assert.deepEqual((await attest(reference, [odd])).selectors, ["unix:ok:1"]);
});

test("a connection of our own process is our own", async () => {
  const { socket, close } = await accepted(async (path) => {
    const own = createConnection(path);
    own.on("error", () => {});
    await new Promise((resolve) => own.once("connect", resolve));
  });
  const reference = callerOf(socket);
  assert.equal(reference.pid, process.pid);
  if (reference.pidfd !== null) {
    closePidfd(reference.pidfd);
  }
  socket.destroy();
  close();
});
