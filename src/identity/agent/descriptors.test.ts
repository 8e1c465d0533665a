/** Connections and processes that come and go in every way leave nothing open in the agent. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readlinkSync } from "node:fs";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { credentials } from "@grpc/grpc-js";
import { FakeClock } from "../../core/base/clock.ts";
import { parseSpiffeId } from "../../core/spiffe/id.ts";
import { SpiffeWorkloadAPI } from "../../gen/spiffe/workload_pb.js";
import { makeClient } from "../../io/rpc/adapter.ts";
import { workloadMetadata } from "../../workload/workload-api.ts";
import type { RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { FakeServer } from "./server-fixture.ts";

const folder = testFolder();
let clock: FakeClock;
let server: FakeServer;
let agent: RunningAgent;
before(async () => {
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  await server.listen();
  agent = await startTestAgent(server, folder.dir);
});
after(async () => {
  await agent.close();
  await server.close();
  folder.remove();
});

const path = (): string => agent.socket.replace("unix://", "");

/** What a descriptor of the agent can be of that stands for a process. */
function pidfds(): number {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target.includes("pidfd")).length;
}

const settled = (count: number) =>
  until(() => agent.connections().workload === 0 && pidfds() === count, "all descriptors to be closed");

async function knock(write: Uint8Array): Promise<void> {
  const socket = connect(path());
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.end(write);
  socket.resume();
  await once(socket, "close");
}

test("connections that say nothing, or nonsense, or are cut off", async () => {
  const count = pidfds();
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  for (const said of ["", "nonsense\n", preface, preface.subarray(0, 10), "\u0000".repeat(100_000)]) {
    await Promise.all(Array.from({ length: 30 }, () => knock(Buffer.from(said))));
  }
  await settled(count);
});

test("calls that are denied, answered or given up", async () => {
  const count = pidfds();
  const ask = async (end: (stream: { cancel(): void }) => void) => {
    const client = makeClient(SpiffeWorkloadAPI, `unix:${path()}`, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
    });
    const stream = client.fetchX509SVID({}, { metadata: workloadMetadata() });
    stream.on("error", () => {});
    const over = Promise.race([
      once(stream, "data").catch(() => {}),
      new Promise((resolve) => stream.once("error", resolve)),
    ]);
    end(stream);
    await over;
    stream.cancel();
    client.close();
  };
  await Promise.all(Array.from({ length: 20 }, () => ask(() => {})));
  await Promise.all(Array.from({ length: 20 }, () => ask((stream) => stream.cancel())));
  server.setEntries({
    id: "own",
    spiffeId: parseSpiffeId("spiffe://example.com/own"),
    selectors: [`unix:uid:${process.getuid?.()}`],
  });
  await until(() => agent.cache.svidCount === 1, "the SVID");
  await Promise.all(Array.from({ length: 20 }, () => ask(() => {})));
  await settled(count);
});

test("processes that are killed while connected", async () => {
  const count = pidfds();
  const python =
    "import socket,sys,time\ns=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);print('on',flush=True);time.sleep(60)";
  const children = Array.from({ length: 10 }, () =>
    spawn("python3", ["-c", python, path()], { stdio: ["ignore", "pipe", "inherit"] }),
  );
  await Promise.all(children.map(({ stdout }) => once(stdout, "data")));
  await until(() => agent.connections().workload === 10, "the connections");
  assert.equal(pidfds(), count + 10);
  for (const child of children) {
    child.kill("SIGKILL");
  }
  await settled(count);
});
