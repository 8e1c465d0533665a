/** Two real Envoys, with the bootstrap that docs/identity.md shows, in mutual TLS off our agent's SDS. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect } from "node:tls";
import type { RunningAgent } from "../../src/identity/agent/agent.ts";
import { startTestAgent, testFolder, until } from "../../src/identity/agent/fixture.ts";
import { type FakeEntry, FakeServer } from "../../src/identity/agent/server-fixture.ts";
import { systemClock } from "../../src/io/clock.ts";
import { parseStat } from "../../src/io/process.ts";
import { peer, without } from "../peers.ts";

const skip = without("envoy");
const PAYMENTS = "spiffe://example.com/ns/shop/sa/payments";
const WEB = "spiffe://example.com/ns/shop/sa/web";
const OTHER = "spiffe://example.com/ns/shop/sa/other";

const server = new FakeServer(systemClock);
const folder = testFolder();
const children: ChildProcess[] = [];
const entries: FakeEntry[] = [];
let agent: RunningAgent;
let app: Server;

before(async () => {
  app = createServer((request, response) => response.end(`${request.headers["x-forwarded-client-cert"]}\n`));
  await new Promise<void>((resolve) => app.listen(0, "127.0.0.1", resolve));
  await server.listen();
  agent = await startTestAgent(server, folder.dir);
});
after(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
  }
  await agent.close();
  await server.close();
  app.closeAllConnections();
  app.close();
  folder.remove();
});

/** The bootstrap of the document, with free ports and our agent's socket. */
function bootstrap(peerPort: number): string {
  const text = readFileSync(join(import.meta.dirname, "../../docs/identity.md"), "utf8");
  const [, yaml] = /^<!-- envoy: sds -->\n```yaml\n([\s\S]*?)^```$/m.exec(text) ?? [];
  const { port } = app.address() as AddressInfo;
  const replacements: readonly (readonly [string, string])[] = [
    ["address: 127.0.0.1, port_value: 9901", "address: 127.0.0.1, port_value: 0"],
    ["address: 0.0.0.0, port_value: 8443", "address: 127.0.0.1, port_value: 0"],
    ["address: 127.0.0.1, port_value: 15001", "address: 127.0.0.1, port_value: 0"],
    ["address: 127.0.0.1, port_value: 3000", `address: 127.0.0.1, port_value: ${port}`],
    ["address: 10.0.0.5, port_value: 8443", `address: 127.0.0.1, port_value: ${peerPort}`],
    ["/run/everyhop/agent.sock", agent.socket.replace("unix://", "")],
  ];
  return replacements.reduce((whole, [from, to]) => {
    assert.equal(whole.split(from).length, 2, `the document's bootstrap has \`${from}\` once`);
    return whole.replace(from, to);
  }, yaml ?? "");
}

interface Envoy {
  readonly inbound: number;
  readonly outbound: number;
  admin(path: string): Promise<string>;
}

/** Starts an Envoy that is `spiffeId`, and waits until it listens. */
async function start(name: string, spiffeId: string, peerPort: number): Promise<Envoy> {
  const file = join(folder.dir, `${name}.yaml`);
  const adminFile = join(folder.dir, `${name}.admin`);
  writeFileSync(file, bootstrap(peerPort));
  const options = ["-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "error"];
  const child = spawn(peer("envoy") as string, [...options, "--admin-address-path", adminFile], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  children.push(child);
  await new Promise((resolve, reject) => child.once("spawn", resolve).once("error", reject));
  const { startTime } = parseStat(readFileSync(`/proc/${child.pid}/stat`, "utf8")) ?? {};
  entries.push({ id: name, spiffeId, selectors: [`unix:process:${child.pid}:${startTime}`] });
  server.setEntries(...entries);
  const admin = async (path: string): Promise<string> =>
    (await fetch(`http://${readFileSync(adminFile, "utf8").trim()}${path}`)).text();
  const port = async (listener: string) => {
    let found: RegExpExecArray | null = null;
    while (found === null) {
      assert.equal(child.exitCode, null, `${name} runs`);
      const text = await admin("/listeners").catch(() => "");
      found = new RegExp(`^${listener}::127\\.0\\.0\\.1:(\\d+)$`, "m").exec(text);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return Number(found[1]);
  };
  return { inbound: await port("inbound"), outbound: await port("outbound"), admin };
}

const get = async ({ outbound }: Envoy) => {
  const response = await fetch(`http://127.0.0.1:${outbound}/`, { headers: { connection: "close" } });
  return { status: response.status, body: (await response.text()).replace(/Hash=[0-9a-f]+;/, "") };
};

/** Serials that an Envoy has its certificates by. */
async function serials(envoy: Envoy): Promise<string> {
  const { certificates } = JSON.parse(await envoy.admin("/certs")) as {
    certificates: { cert_chain?: { serial_number: string }[] }[];
  };
  return [
    ...new Set(certificates.flatMap(({ cert_chain }) => cert_chain?.map((one) => one.serial_number) ?? [])),
  ].join();
}

test("two Envoys with certificates from our SDS: mutual TLS, the right peer only, and rotation", {
  skip,
}, async (t) => {
  const payments = await start("payments", PAYMENTS, 9);
  const web = await start("web", WEB, payments.inbound);
  await t.test("each knows the other by its SPIFFE ID", async () => {
    assert.deepEqual(await get(web), { status: 200, body: `By=${PAYMENTS};URI=${WEB}\n` });
  });
  await t.test("a valid SVID of somebody else is refused", async () => {
    const other = await start("other", OTHER, payments.inbound);
    assert.equal((await get(other)).status, 503);
  });
  await t.test("no certificate is refused", async () => {
    const socket = connect({ port: payments.inbound, host: "127.0.0.1", rejectUnauthorized: false });
    const answer = await new Promise((resolve) => {
      socket.once("error", () => resolve("closed")).once("close", () => resolve("closed"));
      socket.once("data", () => resolve("answered"));
      socket.once("secureConnect", () => socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
    });
    assert.equal(answer, "closed");
  });
  await t.test("a new authority and new SVIDs reach both while they run", async () => {
    const before = await Promise.all([payments, web].map(serials));
    server.rotateCa("taint");
    let now = before;
    while (now.some((one, index) => one === before[index])) {
      now = await Promise.all([payments, web].map(serials));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    let answer = await get(web);
    // An Envoy that took its SVID before its peer took the new authority is refused for that moment.
    while (answer.status === 503) {
      answer = await get(web);
    }
    assert.deepEqual(answer, { status: 200, body: `By=${PAYMENTS};URI=${WEB}\n` });
  });
  await t.test("an SVID that is withdrawn ends its stream, and Envoy asks again", async () => {
    const streams = agent.watchedProcesses();
    server.setEntries();
    await until(() => agent.watchedProcesses() < streams, "streams ended");
    server.setEntries(...entries);
    assert.equal((await get(web)).status, 200);
  });
});
