import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { memoryKeyStore } from "../../io/keys.ts";
import { silentLog } from "../../io/log.ts";
import { type BootstrapOptions, bootstrapAuthorities } from "./bootstrap.ts";
import { startTestAgent, testFolder } from "./fixture.ts";
import { FakeServer, TRUST_DOMAIN } from "./server-fixture.ts";
import { trustAnchors } from "./trust-anchors.ts";

async function fakeServer(t: TestContext): Promise<FakeServer> {
  const server = new FakeServer(new FakeClock(Date.now()));
  await server.listen();
  t.after(() => server.close());
  return server;
}

const options = (server: FakeServer): BootstrapOptions => ({
  trustDomain: TRUST_DOMAIN,
  servers: [server.address],
  clock: server.clock,
  random: () => 0,
  log: silentLog,
});

async function onSocket(t: TestContext, socket: string, listener: RequestListener): Promise<void> {
  const http = createServer(listener).listen(socket);
  t.after(() => {
    http.close();
    http.closeAllConnections();
  });
  await new Promise((resolve) => http.once("listening", resolve));
}

test("without a bundle the server is believed once, and held to what it said", async (t) => {
  const server = await fakeServer(t);
  const { dir, remove } = testFolder();
  t.after(remove);
  const source = { kind: "server" } as const;
  const agent = await startTestAgent(server, dir, { trustBundle: source });
  await agent.close();
  const keys = memoryKeyStore();
  const first = await trustAnchors({ ...options(server), trustBundle: source }, keys);
  assert.deepEqual(
    first.authorities.value.map((der) => Buffer.from(der)),
    [Buffer.from(server.ca.der)],
  );
  server.rotateCa("drop");
  const again = await trustAnchors({ ...options(server), trustBundle: source }, keys);
  assert.deepEqual(
    again.authorities.value.map((der) => Buffer.from(der)),
    first.authorities.value.map((der) => Buffer.from(der)),
    "no second word is asked for",
  );
});

test("a bundle from a URL, in both forms; what is no bundle is refused, what is not there is waited for", async (t) => {
  const server = await fakeServer(t);
  const { dir, remove } = testFolder();
  t.after(remove);
  let body = server.bundlePem;
  let status = 200;
  const socket = join(dir, "bundle.sock");
  await onSocket(t, socket, (_request, response) => response.writeHead(status).end(body));
  const source = { kind: "url", url: "http://bundle/", socket } as const;
  assert.deepEqual(await bootstrapAuthorities(source, options(server)), [server.ca.der]);
  const x5c = [Buffer.from(server.ca.der).toString("base64")];
  body = JSON.stringify({ keys: [{ use: "x509-svid", kty: "EC", crv: "P-256", x: "", y: "", x5c }] });
  assert.equal((await bootstrapAuthorities(source, options(server))).length, 1);
  body = "<html>";
  await assert.rejects(bootstrapAuthorities(source, options(server)), /no trust bundle/);
  status = 302;
  const waiting = bootstrapAuthorities(source, options(server));
  const settled = waiting.then(
    () => "done",
    (error: Error) => error.message,
  );
  const clock = server.clock as FakeClock;
  let answer: string | null = null;
  settled.then((value) => {
    answer = value;
  });
  while (answer === null) {
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(1_000);
  }
  assert.match(answer, /status 302/);
});
