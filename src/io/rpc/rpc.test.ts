import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { credentials } from "@grpc/grpc-js";
import { Cell } from "../../core/base/cell.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { parseSpiffeId, type SpiffeId } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { HOUR, type TestCa, testCa, testKey, testLeaf } from "../../core/x509/fixture.ts";
import { Health } from "../../gen/grpc/health/health_pb.js";
import { peerChain } from "../tls.ts";
import { type Handlers, makeClient } from "./adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "./channel.ts";
import { listenTls, listenUnix, type RpcListener } from "./listen.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) {
    await cleanup();
  }
});

// TLS itself looks at the real time: these certificates are valid now.
const now = Date.now();
const valid = { notBeforeMs: now - HOUR, notAfterMs: now + HOUR };

function svid(ca: TestCa, name: string): X509Svid {
  const own = testKey();
  const id = parseSpiffeId(`spiffe://example.com/${name}`);
  const chain = [testLeaf(ca, id, valid, own)];
  const keyDer = own.key.export({ format: "der", type: "pkcs8" });
  return { id, chain, keyDer, serial: name, notBefore: valid.notBeforeMs, notAfter: valid.notAfterMs, hint: "" };
}

function handlers(seen: () => RpcListener<unknown>, peers: unknown[]): Handlers<typeof Health> {
  return {
    check(call, answer) {
      peers.push(seen().peerOf(call));
      answer(null, { status: 1 });
    },
    watch(call) {
      call.write({ status: 1 });
    },
  };
}

async function tlsMesh(ca: TestCa) {
  const peers: unknown[] = [];
  const refused: string[] = [];
  const server = new Cell(svid(ca, "server"));
  const listener: RpcListener<SpiffeId | null> = await listenTls({ host: "127.0.0.1", port: 0 }, server, {
    services: [{ service: Health, handlers: handlers(() => listener, peers) }],
    identify(socket: TLSSocket) {
      const chain = peerChain(socket);
      if (chain.length === 0) {
        return null;
      }
      const verified = verifyX509Svid(chain, () => ({ x509Authorities: [ca.der] }), now);
      if (!verified.ok) {
        throw new EveryhopError("unauthenticated", verified.reason);
      }
      return verified.id;
    },
    onRefused: (error) => refused.push((error as Error).message),
  });
  cleanups.push(() => listener.close());
  return { listener, server, peers, refused };
}

function client(listener: RpcListener<unknown>, ca: TestCa, own: Cell<X509Svid | null> | null, expected = "server") {
  const refuse = (chain: readonly Uint8Array[]) => {
    const verified = verifyX509Svid(chain, () => ({ x509Authorities: [ca.der] }), now);
    if (!verified.ok) {
      return verified.message;
    }
    return verified.id.endsWith(`/${expected}`) ? null : `\`${verified.id}\` is not the server`;
  };
  const made = makeClient(
    Health,
    listener.address,
    spiffeCredentials({ svid: own, authorities: new Cell<readonly Uint8Array[]>([ca.der]), refuse }),
    { ...SPIFFE_CHANNEL_OPTIONS, "grpc.use_local_subchannel_pool": 1 },
  );
  cleanups.push(() => made.close());
  return made;
}

test("a handler knows the identity that the connection proved, or that there is none", async () => {
  const ca = testCa("a", valid);
  const { listener, peers } = await tlsMesh(ca);
  await client(listener, ca, new Cell<X509Svid | null>(svid(ca, "one"))).check({});
  await client(listener, ca, null).check({});
  assert.deepEqual(peers, ["spiffe://example.com/one", null]);
});

test("a server of another identity or another authority is refused by the client", async () => {
  const ca = testCa("a", valid);
  const { listener, peers } = await tlsMesh(ca);
  await assert.rejects(client(listener, ca, null, "other").check({}), /is not the server/);
  await assert.rejects(client(listener, testCa("b", valid), null).check({}), { code: 14 });
  assert.deepEqual(peers, []);
});

test("a client of another authority is refused by the server before any call", async () => {
  const ca = testCa("a", valid);
  const { listener, peers, refused } = await tlsMesh(ca);
  await assert.rejects(
    client(listener, ca, new Cell<X509Svid | null>(svid(testCa("b", valid), "one"))).check({}, { deadlineMs: 2_000 }),
  );
  assert.equal(peers.length, 0);
  assert.ok(refused.length > 0);
});

test("a new SVID is used by new connections while the old stream goes on", async () => {
  const ca = testCa("a", valid);
  const { listener, server, peers } = await tlsMesh(ca);
  const first = client(listener, ca, new Cell<X509Svid | null>(svid(ca, "one")));
  const stream = first.watch({});
  stream.on("error", () => {});
  await new Promise((resolve) => stream.once("data", resolve));
  server.set(svid(ca, "server-two"));
  await client(listener, ca, new Cell<X509Svid | null>(svid(ca, "two")), "server-two").check({});
  await first.check({});
  assert.deepEqual(peers, ["spiffe://example.com/two", "spiffe://example.com/one"]);
  assert.equal(
    listener.disconnect((peer) => peer?.endsWith("/one") ?? false),
    1,
  );
});

test("a unix socket has the rights asked for, replaces a dead one and spares a living one", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "a.sock");
  const bind = `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", bind]);
  assert.ok(statSync(path).isSocket());
  const peers: unknown[] = [];
  const options = {
    services: [{ service: Health, handlers: handlers(() => listener, peers) }],
    identify: () => "local",
  };
  const listener: RpcListener<unknown> = await listenUnix(path, 0o600, options);
  cleanups.push(() => listener.close());
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const local = makeClient(Health, `unix:${path}`, credentials.createInsecure());
  cleanups.push(() => local.close());
  await local.check({});
  assert.deepEqual(peers, ["local"]);
  await assert.rejects(listenUnix(path, 0o600, options), { code: "port-in-use" });
  writeFileSync(join(folder, "notes.txt"), "keep me");
  await assert.rejects(listenUnix(join(folder, "notes.txt"), 0o600, options), { code: "failed-precondition" });
});

test("a client closed in the turn of its first call leaves no connection", async () => {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-rpc-"));
  cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
  let open = 0;
  const heard: (() => void)[] = [];
  const listener: RpcListener<number> = await listenUnix(join(dir, "a.sock"), 0o600, {
    services: [{ service: Health, handlers: handlers(() => listener, []) }],
    identify: () => ++open,
    onGone: () => {
      open -= 1;
      heard.splice(0).forEach((tell) => {
        tell();
      });
    },
  });
  cleanups.push(() => listener.close());
  const connect = () =>
    makeClient(Health, `unix:${join(dir, "a.sock")}`, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
    });
  for (let round = 0; round < 5; round++) {
    const hasty = connect();
    const stream = hasty.watch({}).on("error", () => {});
    stream.cancel();
    hasty.close();
  }
  // When this one has been answered, those before it have connected, if they ever do.
  const last = connect();
  await last.check({});
  last.close();
  while (open > 0) {
    await new Promise<void>((resolve) => heard.push(resolve));
  }
  assert.equal(open, 0);
});
