import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { closePidfd, exitedPidfds, openPidfd, peerCredentials, peerPidfd } from "./peer.ts";

async function pair(): Promise<{ accepted: Socket; own: Socket; close(): void }> {
  const path = join(tmpdir(), `everyhop-peer-${process.pid}.sock`);
  rmSync(path, { force: true });
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const own = createConnection(path);
  return {
    accepted: await accepted,
    own,
    close: () => {
      own.destroy();
      server.close();
    },
  };
}

test("the kernel names the process on the other end of a unix socket", async () => {
  const { accepted, close } = await pair();
  assert.deepEqual(peerCredentials(accepted), {
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  });
  const pidfd = peerPidfd(accepted);
  if (pidfd !== null) {
    assert.deepEqual(exitedPidfds([pidfd]), [false]);
    closePidfd(pidfd);
  }
  accepted.destroy();
  assert.throws(() => peerCredentials(accepted), /is gone/);
  close();
});

test("a pidfd tells that its process has exited, before anyone waited for it", async () => {
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  await new Promise((resolve) => child.once("spawn", resolve));
  const own = openPidfd(process.pid) as number;
  const pidfd = openPidfd(child.pid as number) as number;
  assert.deepEqual(exitedPidfds([own, pidfd]), [false, false]);
  child.kill("SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
  assert.deepEqual(exitedPidfds([own, pidfd]), [false, true]);
  assert.deepEqual(exitedPidfds([]), []);
  closePidfd(own);
  closePidfd(pidfd);
  assert.equal(openPidfd(2 ** 22), null);
  assert.deepEqual(exitedPidfds([pidfd]), [true], "what cannot be asked is not trusted to live");
});
