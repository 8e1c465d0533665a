import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";
import { parseTrustDomain } from "../core/spiffe/id.ts";
import { testCa } from "../core/x509/fixture.ts";
import { id, TestMesh, TRUST_DOMAIN, testEnforcer, testSvid } from "./fixture.ts";
import { ask, echoApp, httpApp, mtls, plain, untilClosed, untilMatch } from "./fixture-client.ts";
import type { KillReceipt } from "./sidecar.ts";

const HOST = "Host: shop\r\n";
const echoTcp = (socket: Socket): void => {
  socket.on("data", (chunk: Buffer) => socket.write(chunk));
  socket.on("end", () => socket.end());
};

describe("a sidecar's life", () => {
  let mesh: TestMesh;
  let slow: (socket: Socket) => void = () => {};
  beforeEach(async () => {
    mesh = new TestMesh([
      { name: "shop", serve: echoApp },
      { name: "db", protocol: "tcp", serve: echoTcp },
      { name: "slow", serve: (socket) => slow(socket) },
      { name: "caller", serve: () => {} },
    ]);
    await mesh.start();
  });
  afterEach(() => mesh.close());

  const call = (name: string, options = {}) => ask(mesh.member("caller").outboundPort(name), options);

  it("carries TCP both ways with half-close, and counts it", async () => {
    const socket = await plain(mesh.member("caller").outboundPort("db"));
    const all = untilClosed(socket);
    socket.end("select 1");
    assert.equal(await all, "select 1");
    const text = mesh.member("db").sidecar.telemetry.registry.text();
    assert.match(
      text,
      /istio_tcp_connections_opened_total\{reporter="destination",source_workload="caller"[^}]*\} 1\n/,
    );
    assert.match(text, /istio_tcp_received_bytes_total\{reporter="destination",source_workload="caller"[^}]*\} 8\n/);
  });

  it("closes denied TCP before a byte, counts and records it", async () => {
    mesh.enforcers.set(
      "db",
      testEnforcer((principal) => principal !== "example.com/ns/prod/sa/caller"),
    );
    mesh.push();
    const socket = await plain(mesh.member("caller").outboundPort("db"));
    assert.equal(await untilClosed(socket, "drop table users"), "");
    const { seen, sidecar } = mesh.member("db");
    assert.equal(seen, "");
    assert.match(sidecar.telemetry.registry.text(), /everyhop_tcp_denied_total\{source_workload="caller"[^}]*\} 1\n/);
    const [denial] = sidecar.denials.take(1);
    assert.deepEqual([denial?.source, denial?.request, denial?.port], [id("caller"), null, 8080]);
  });

  it("closes a TCP connection that a new policy forbids", async () => {
    const socket = await plain(mesh.member("caller").outboundPort("db"));
    const echoed = untilMatch(socket, /^hello$/);
    socket.write("hello");
    await echoed;
    const closed = untilClosed(socket);
    mesh.enforcers.set(
      "db",
      testEnforcer(() => false),
    );
    mesh.push();
    assert.equal(await closed, "");
  });

  it("closes an exchange that a new policy forbids while it is under way, and no other", async () => {
    const waiting: Socket[] = [];
    slow = httpSlow(waiting);
    const requests = ["/a", "/b"].map((path) => call("slow", { path }).catch((error: Error) => error.message));
    while (waiting.length < 2) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    mesh.enforcers.set(
      "slow",
      testEnforcer((_principal, _method, path) => path !== "/a"),
    );
    mesh.push();
    const forbidden = await requests[0];
    assert.ok(typeof forbidden === "object" && forbidden.status === 503);
    for (const socket of waiting) {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
    const allowed = await requests[1];
    assert.ok(typeof allowed === "object" && allowed.body === "ok");
  });

  const httpSlow =
    (waiting: Socket[]) =>
    (socket: Socket): void => {
      socket.once("data", () => waiting.push(socket));
    };

  describe("kill", () => {
    it("closes every live connection of the identity, refuses new ones, tells how many; restore undoes it", async () => {
      const receipts = new Map<string, KillReceipt[]>();
      for (const { name, sidecar } of mesh.members.values()) {
        receipts.set(name, []);
        sidecar.onReceipt = (receipt) => receipts.get(name)?.push(receipt);
      }
      const direct = await mtls(mesh.member("shop").inboundPort, testSvid(mesh.ca, id("caller")));
      const answered = untilMatch(direct, /GET \/1 0$/);
      direct.write(`GET /1 HTTP/1.1\r\n${HOST}\r\n`);
      await answered;
      const tcp = await plain(mesh.member("caller").outboundPort("db"));
      const echoed = untilMatch(tcp, /^x$/);
      tcp.write("x");
      await echoed;
      const closed = [untilClosed(direct), untilClosed(tcp)];
      mesh.kills = [{ order: "order-1", spiffeId: id("caller") }];
      mesh.push();
      assert.deepEqual(await Promise.all(closed), ["", ""]);
      assert.deepEqual(receipts.get("shop"), [{ order: "order-1", connectionsClosed: 1 }]);
      assert.equal(receipts.get("db")?.[0]?.order, "order-1");
      assert.deepEqual(receipts.get("slow"), [{ order: "order-1", connectionsClosed: 0 }]);

      // New ones: from outside, and from the service itself.
      mesh.member("shop").seen = "";
      const again = await mtls(mesh.member("shop").inboundPort, testSvid(mesh.ca, id("caller")));
      assert.equal(await untilClosed(again, `GET /2 HTTP/1.1\r\n${HOST}\r\n`), "");
      const reply = await call("shop");
      assert.equal(reply.status, 403);
      assert.equal(reply.body, "RBAC: access denied");
      assert.equal(mesh.member("shop").seen, "");
      const reasons = mesh
        .member("shop")
        .sidecar.denials.take(10)
        .map(({ verdict, source }) => [verdict.reason, source]);
      assert.deepEqual(reasons, [["killed", id("caller")]]);

      // The same order is not reported twice; an undone one opens again.
      mesh.push();
      assert.equal(receipts.get("shop")?.length, 1);
      mesh.kills = [];
      mesh.push();
      assert.equal((await call("shop")).status, 200);
    });

    it("cuts a server off from its callers too", async () => {
      assert.equal((await call("shop")).status, 200);
      mesh.kills = [{ order: "order-2", spiffeId: id("shop") }];
      mesh.push();
      mesh.member("shop").seen = "";
      assert.equal((await call("shop")).status, 403);
      assert.equal(mesh.member("shop").seen, "");
    });

    it("reaches a connection that is still in its handshake", async () => {
      const socket = await plain(mesh.member("shop").inboundPort);
      const closed = untilClosed(socket);
      // The first bytes of a handshake, then nothing: registered, not yet proven.
      socket.write(Buffer.from([0x16, 3, 1]));
      while (mesh.member("shop").sidecar.connections.size === 0) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      mesh.kills = [{ order: "order-3", spiffeId: id("shop") }];
      mesh.push();
      assert.equal(await closed, "");
    });
  });

  describe("identity", () => {
    it("rotates under load without a dropped request", async () => {
      let stop = false;
      let done = 0;
      const load = Array.from({ length: 8 }, async () => {
        while (!stop) {
          const reply = await call("shop", { method: "POST", body: "x".repeat(1_000) });
          assert.equal(reply.status, 200);
          done++;
        }
      });
      const tcp = await plain(mesh.member("caller").outboundPort("db"));
      for (let round = 0; round < 10; round++) {
        for (const { name, sidecar } of mesh.members.values()) {
          sidecar.state.svid.set(testSvid(mesh.ca, id(name)));
        }
        const wanted = done + 20;
        while (done < wanted) {
          await new Promise((resolve) => setImmediate(resolve));
        }
        const echoed = untilMatch(tcp, new RegExp(`^round ${round}$`));
        tcp.write(`round ${round}`);
        await echoed;
      }
      stop = true;
      await Promise.all(load);
      tcp.destroy();
      assert.ok(done >= 200);
    });

    it("asks a peer that was shown the SVID before to come again, after the answer", async () => {
      const { inboundPort, sidecar } = mesh.member("shop");
      const socket = await mtls(inboundPort, testSvid(mesh.ca, id("caller")));
      const answered = untilMatch(socket, /GET \/1 0$/);
      socket.write(`GET /1 HTTP/1.1\r\n${HOST}\r\n`);
      await answered;
      sidecar.state.svid.set(testSvid(mesh.ca, id("shop")));
      const rest = await untilClosed(socket, `GET /2 HTTP/1.1\r\n${HOST}\r\n`);
      assert.match(rest, /^HTTP\/1\.1 200 .*\r\nconnection: close\r\n.*GET \/2 0$/is);
    });

    it("goes on through a rotation of the CA whose old root expires, and ends when a root is taken out", async () => {
      const tcp = await plain(mesh.member("caller").outboundPort("db"));
      const say = async (word: string) => {
        const echoed = untilMatch(tcp, new RegExp(`^${word}$`));
        tcp.write(word);
        await echoed;
      };
      await say("before");
      const next = testCa("next root");
      for (const { sidecar } of mesh.members.values()) {
        sidecar.state.bundles.set(new Map([[TRUST_DOMAIN, [mesh.ca.der, next.der]]]));
      }
      await say("both");
      const closed = untilClosed(tcp);
      const other = parseTrustDomain("other.test");
      mesh.member("db").sidecar.state.bundles.set(
        new Map([
          [TRUST_DOMAIN, [next.der]],
          [other, [mesh.ca.der]],
        ]),
      );
      assert.equal(await closed, "");
    });

    it("is waited for: a request made before it is there is served when it comes", async () => {
      const { sidecar } = mesh.member("caller");
      const svid = sidecar.state.svid.value;
      sidecar.state.svid.set(null);
      const reply = call("shop");
      await new Promise((resolve) => setImmediate(resolve));
      sidecar.state.svid.set(svid);
      assert.equal((await reply).status, 200);
    });

    it("ends with the process it was given for: every connection is closed", async () => {
      const tcp = await plain(mesh.member("caller").outboundPort("db"));
      const echoed = untilMatch(tcp, /^x$/);
      tcp.write("x");
      await echoed;
      const closed = untilClosed(tcp);
      mesh.member("db").sidecar.state.svid.set(null);
      assert.equal(await closed, "");
      assert.equal(mesh.member("db").sidecar.connections.size, 0);
    });
  });

  it("serves nothing without a snapshot", async () => {
    const lone = new TestMesh([
      { name: "shop", serve: echoApp },
      { name: "caller", serve: () => {} },
    ]);
    await lone.start({ unconfigured: true });
    const svid = testSvid(lone.ca, id("caller"));
    const answer = await mtls(lone.member("shop").inboundPort, svid).then(
      (socket) => untilClosed(socket, `GET / HTTP/1.1\r\n${HOST}\r\n`),
      () => "",
    );
    assert.equal(answer, "");
    assert.equal(await untilClosed(await plain(lone.member("shop").inboundPort), "GET /"), "");
    assert.equal((await ask(lone.member("caller").outboundPort("shop"))).status, 503);
    assert.equal(lone.member("shop").seen, "");
    await lone.close();
  });

  it("asks the other side by its name where the client named the listener", async () => {
    await call("shop");
    await call("shop", { headers: { host: "shop.example" } });
    assert.deepEqual(
      mesh.member("shop").seen.match(/host: .*(?=\r\n)/gi),
      ["host: shop", "Host: shop.example"].map((line) => line.replace("Host", "host")),
    );
  });

  it("answers 503 for a service that left the mesh", async () => {
    const { sidecar, outboundPort } = mesh.member("caller");
    assert.equal((await call("shop")).status, 200);
    const { makeFacts } = await import("./state.ts");
    const snapshot = mesh.snapshot("caller");
    const upstreams = snapshot.upstreams.filter(({ name }) => name !== "shop");
    sidecar.state.facts.set(makeFacts({ ...snapshot, upstreams }, testEnforcer()));
    const reply = await ask(outboundPort("shop"));
    assert.deepEqual([reply.status, reply.body], [503, "no such service in the mesh"]);
  });

  describe("memory", () => {
    it("is bounded where the reader is slow: the writer is held up instead", async () => {
      const total = 64 * 1024 * 1024;
      let sent = 0;
      slow = httpApp((_request, response) => {
        const more = (): void => {
          while (sent < total) {
            sent += 65_536;
            if (!response.write(Buffer.alloc(65_536))) {
              response.once("drain", more);
              return;
            }
          }
          response.end();
        };
        more();
      });
      const socket = await plain(mesh.member("caller").outboundPort("slow"));
      socket.pause();
      socket.write(`GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
      // Until nothing moves any more: then everything between is as full as it gets.
      let before = -1;
      while (sent !== before || sent === 0) {
        before = sent;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      assert.ok(sent < 24 * 1024 * 1024, `${sent} bytes taken from the application`);
      let received = 0;
      socket.on("data", (chunk: Buffer) => {
        received += chunk.length;
      });
      socket.resume();
      await new Promise((resolve) => socket.once("end", resolve));
      assert.ok(received > total);
      socket.destroy();
    });

    it("is bounded where requests are pipelined and answers not read", async () => {
      mesh.enforcers.set(
        "shop",
        testEnforcer(() => false),
      );
      mesh.push();
      const socket = await mtls(mesh.member("shop").inboundPort, testSvid(mesh.ca, id("caller")));
      socket.pause();
      const requests = Buffer.from(`GET / HTTP/1.1\r\n${HOST}\r\n`.repeat(2_000));
      let taken = 0;
      const more = (): void => {
        while (taken < 200 && socket.write(requests)) {
          taken++;
        }
        socket.once("drain", more);
      };
      more();
      let before = -1;
      while (taken !== before) {
        before = taken;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      assert.ok(taken < 200, "the client could write for ever");
      socket.destroy();
    });
  });
});

describe("timeouts", () => {
  it("end a head that does not come, a handshake that does not, and an idle connection", async () => {
    const mesh = new TestMesh([
      { name: "shop", serve: echoApp },
      { name: "caller", serve: () => {} },
    ]);
    await mesh.start({ timeouts: { headMs: 50, idleMs: 100, connectMs: 1_000 } });
    const { inboundPort, sidecar } = mesh.member("shop");
    const svid = testSvid(mesh.ca, id("caller"));
    const head = await mtls(inboundPort, svid);
    const answered = untilClosed(head, "GET / HTT");
    const silent = untilClosed(await plain(inboundPort));
    const handshake = untilClosed(await plain(inboundPort), Buffer.from([0x16, 3, 1]));
    const idle = await mtls(inboundPort, svid);
    const first = untilMatch(idle, /GET \/ 0$/);
    idle.write(`GET / HTTP/1.1\r\n${HOST}\r\n`);
    await first;
    const ended = untilClosed(idle);
    assert.match(await answered, /^HTTP\/1\.1 408 Request Timeout\r\n/);
    assert.equal(await silent, "");
    assert.equal(await handshake, "");
    assert.equal(await ended, "");
    while (sidecar.connections.size > 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    await mesh.close();
  });
});
