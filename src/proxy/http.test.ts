import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { after, before, beforeEach, describe, it } from "node:test";
import fc from "fast-check";
import { id, TestMesh, testEnforcer, testSvid } from "./fixture.ts";
import { ask, echoApp, mtls, plain, untilClosed, untilMatch } from "./fixture-client.ts";

const HOST = "Host: shop\r\n";

/** Requests whose framing two parsers could see differently, whole in one write. */
const SMUGGLING: readonly [name: string, bytes: string][] = [
  ["CL.TE", `POST / HTTP/1.1\r\n${HOST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG`],
  [
    "TE.CL",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n`,
  ],
  ["TE.TE", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n`],
  ["TE with a tab", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n`],
  ["TE with a space before the colon", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`],
  ["TE on a folded line", `POST / HTTP/1.1\r\n${HOST}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["TE xchunked", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
  ["TE behind a bare LF", `POST / HTTP/1.1\r\nHost: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["TE behind a bare CR", `POST / HTTP/1.1\r\nHost: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["CL twice", `POST / HTTP/1.1\r\n${HOST}Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello`],
  ["CL as a list", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5,5\r\n\r\nhello`],
  ["CL with a plus", `POST / HTTP/1.1\r\n${HOST}Content-Length: +5\r\n\r\nhello`],
  ["CL with a NUL", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\0\r\n\r\nhello`],
  ["a chunk size with 0x", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n`],
  ["a chunk size with a bare LF", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n`],
  [
    "a chunk longer than it says",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n`,
  ],
  [
    "a bare LF in an extension",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5;\nx\r\nhello\r\n0\r\n\r\n`,
  ],
  [
    "framing in a trailer",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n`,
  ],
  ["TE in HTTP/1.0", `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["no Host", "GET / HTTP/1.1\r\n\r\n"],
  ["two Hosts", `GET / HTTP/1.1\r\n${HOST}Host: admin\r\n\r\n`],
  ["an absolute target with a user", `GET http://a@shop/ HTTP/1.1\r\n${HOST}\r\n`],
  ["a target that is no path", `GET shop HTTP/1.1\r\n${HOST}\r\n`],
  ["an encoded NUL", `GET /a%00b HTTP/1.1\r\n${HOST}\r\n`],
  ["a space in the target", `GET /a b HTTP/1.1\r\n${HOST}\r\n`],
  ["HTTP/0.9", "GET /\r\n\r\n"],
  ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
  [
    "a length taken away by Connection",
    `POST / HTTP/1.1\r\n${HOST}Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello`,
  ],
  ["Host taken away by Connection", `GET / HTTP/1.1\r\n${HOST}Connection: host\r\n\r\n`],
];

describe("HTTP through an inbound listener", () => {
  let decided: string[] = [];
  const mesh = new TestMesh([
    { name: "shop", serve: echoApp },
    { name: "raw", serve: (socket) => rawApp(socket) },
  ]);
  let rawApp: (socket: Socket) => void = () => {};
  const client = () => mtls(mesh.member("shop").inboundPort, testSvid(mesh.ca, id("raw")));

  before(async () => {
    const enforcer = testEnforcer((_principal, method, path) => {
      decided.push(`${method} ${path}`);
      return path?.startsWith("/denied") !== true;
    });
    mesh.enforcers.set("shop", enforcer);
    await mesh.start();
  });
  beforeEach(() => {
    decided = [];
    mesh.member("shop").seen = "";
  });
  after(() => mesh.close());

  for (const [name, bytes] of SMUGGLING) {
    it(`answers 400 and closes: ${name}`, async () => {
      const answer = await untilClosed(await client(), bytes);
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/);
      assert.equal(answer.match(/HTTP\/1\.1/g)?.length, 1);
      assert.equal(mesh.member("shop").seen, "");
    });
  }

  it("answers 405 to CONNECT, 431 to a head too large", async () => {
    assert.match(await untilClosed(await client(), `CONNECT shop:80 HTTP/1.1\r\n${HOST}\r\n`), /^HTTP\/1\.1 405 /);
    assert.match(
      await untilClosed(await client(), `GET / HTTP/1.1\r\n${HOST}a: ${"b".repeat(70_000)}`),
      /^HTTP\/1\.1 431 /,
    );
    assert.match(
      await untilClosed(await client(), `GET / HTTP/1.1\r\n${HOST}${"a: b\r\n".repeat(200)}\r\n`),
      /^HTTP\/1\.1 431 /,
    );
    assert.equal(mesh.member("shop").seen, "");
  });

  it("denies with nothing but an opaque id, and goes on with the next request", async () => {
    const { sidecar } = mesh.member("shop");
    sidecar.denials.take(1_000);
    const socket = await client();
    const answer = await untilClosed(
      socket,
      `GET /denied?x=1 HTTP/1.1\r\n${HOST}\r\nGET /fine HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`,
    );
    const [first = "", second = ""] = answer.split(/(?<=denied)(?=HTTP)/);
    const parts =
      /^HTTP\/1\.1 403 Forbidden\r\ncontent-length: 19\r\ncontent-type: text\/plain\r\nx-everyhop-denial: ([0-9a-f]{24})\r\n\r\nRBAC: access denied$/.exec(
        first,
      );
    assert.ok(parts, first);
    assert.match(second, /^HTTP\/1\.1 200 OK\r\n[\s\S]*GET \/fine 0$/);
    assert.ok(!mesh.member("shop").seen.includes("denied"));
    const [denial] = sidecar.denials.take(1);
    assert.equal(denial?.id, parts[1]);
    assert.equal(denial?.source, id("raw"));
    assert.deepEqual(denial?.request, { method: "GET", path: "/denied?x=1", host: "shop" });
  });

  it("decides on each pipelined request, and answers in order", async () => {
    const request = (path: string) => `POST ${path} HTTP/1.1\r\n${HOST}Content-Length: 3\r\n\r\nabc`;
    const socket = await client();
    const paths = ["/1", "/2", "/denied", "/3"];
    const answers = untilMatch(socket, /\/3 3$/);
    socket.write(`${paths.map(request).join("")}`);
    const text = await answers;
    assert.deepEqual(text.match(/POST \/\d 3|RBAC: access denied/g), [
      "POST /1 3",
      "POST /2 3",
      "RBAC: access denied",
      "POST /3 3",
    ]);
    assert.deepEqual(
      decided,
      paths.map((path) => `POST ${path}`),
    );
    socket.destroy();
  });

  it("forwards the path that was decided on", async () => {
    const socket = await client();
    await untilClosed(socket, `GET /a/./b?c=/./ HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
    assert.deepEqual(decided, ["GET /a/b?c=/"]);
    assert.match(mesh.member("shop").seen, /^GET \/a\/b\?c=\/ HTTP\/1\.1\r\n/);
  });

  it("takes the authority of an absolute target for the host", async () => {
    const socket = await client();
    await untilClosed(socket, `GET http://other:80/x?y HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
    assert.match(mesh.member("shop").seen, /^GET \/x\?y HTTP\/1\.1\r\n[\s\S]*\r\nhost: other:80\r\n/);
    assert.ok(!mesh.member("shop").seen.includes("shop\r\n"));
  });

  it("serves HTTP/1.0 and closes", async () => {
    const answer = await untilClosed(await client(), `GET /old HTTP/1.0\r\n${HOST}Connection: keep-alive\r\n\r\n`);
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /connection: close\r\n/i);
  });

  it("answers a client that has already closed its side", async () => {
    const socket = await client();
    const answer = untilClosed(socket);
    socket.end(`GET /half HTTP/1.1\r\n${HOST}\r\n`);
    assert.match(await answer, /GET \/half 0$/);
  });

  it("any cut of the bytes gives the same answers", async () => {
    const bytes = Buffer.from(
      `GET /1 HTTP/1.1\r\n${HOST}\r\nPOST /2 HTTP/1.1\r\n${HOST}Content-Length: 10\r\n\r\n0123456789` +
        `POST /3 HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX-T: 1\r\n\r\n` +
        `GET /denied HTTP/1.1\r\n${HOST}\r\nGET /4 HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`,
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 30 }), async (sizes) => {
        decided = [];
        const socket = await client();
        socket.setNoDelay(true);
        const answer = untilClosed(socket);
        let at = 0;
        for (const size of [...sizes, bytes.length]) {
          socket.write(bytes.subarray(at, at + size));
          at += size;
          await new Promise((resolve) => setImmediate(resolve));
        }
        assert.deepEqual((await answer).match(/(GET|POST) \/\d \d+|RBAC: access denied/g), [
          "GET /1 0",
          "POST /2 10",
          "POST /3 6",
          "RBAC: access denied",
          "GET /4 0",
        ]);
        assert.deepEqual(decided, ["GET /1", "POST /2", "POST /3", "GET /denied", "GET /4"]);
      }),
      { numRuns: 30 },
    );
  });

  it("asks for the body only where it is wanted (Expect: 100-continue)", async () => {
    const head = (path: string) => `PUT ${path} HTTP/1.1\r\n${HOST}Content-Length: 4\r\nExpect: 100-continue\r\n\r\n`;
    const socket = await client();
    const interim = untilMatch(socket, /100 Continue\r\n\r\n$/);
    socket.write(head("/up"));
    await interim;
    const final = untilMatch(socket, /PUT \/up 4$/);
    socket.write("body");
    await final;
    socket.destroy();
    assert.match(await untilClosed(await client(), head("/denied")), /^HTTP\/1\.1 403 [\s\S]*connection: close/);
  });

  it("says 503 where the application is down, and serves again when it is back", async () => {
    const { app, appPort } = mesh.member("raw");
    await new Promise((resolve) => app.close(resolve));
    const reply = await ask(mesh.member("shop").outboundPort("raw"));
    assert.equal(reply.status, 503);
    assert.match(reply.body, /^upstream connect error/);
    await new Promise<void>((resolve) => app.listen(appPort, "127.0.0.1", resolve));
    rawApp = (socket) => socket.end("HTTP/1.1 204 No Content\r\n\r\n");
    assert.equal((await ask(mesh.member("shop").outboundPort("raw"))).status, 204);
  });

  describe("an application's answers", () => {
    /** What a client gets when the application answers with `bytes` and, if told, closes. */
    const answered = async (bytes: string, closes = false, method = "GET"): Promise<string> => {
      rawApp = (socket) =>
        socket.on("data", () => {
          socket.write(bytes, "latin1");
          if (closes) {
            socket.end();
          }
        });
      const socket = await mtls(mesh.member("raw").inboundPort, testSvid(mesh.ca, id("shop")));
      return untilClosed(socket, `${method} / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
    };

    it("pass with a length, chunked, until the end, and without a body", async () => {
      assert.match(await answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), /\r\n\r\nhi$/);
      assert.match(
        await answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        /2\r\nhi\r\n0\r\n\r\n$/,
      );
      assert.match(await answered("HTTP/1.1 200 OK\r\n\r\nall of this", true), /connection: close\r\n\r\nall of this$/);
      assert.match(await answered("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"), /^HTTP\/1\.1 304 /);
      assert.match(
        await answered("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", false, "HEAD"),
        /Content-Length: 99/,
      );
    });

    it("pass with interim ones before them", async () => {
      const answer = await answered(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
      );
      assert.match(answer, /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a>\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
    });

    it("lose what is hop by hop", async () => {
      const answer = await answered(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n",
      );
      assert.ok(!/keep-alive|x-hop/i.test(answer), answer);
      assert.match(answer, /X-End: 2\r\n/);
    });

    for (const [name, bytes] of [
      ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi"],
      ["length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
      ["a bad status line", "HTTP/1.1 2000 OK\r\n\r\n"],
      ["no HTTP at all", "220 mail.example ESMTP\r\n"],
      ["a switch nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"],
    ] as const) {
      it(`become 502: ${name}`, async () => {
        assert.match(await answered(bytes), /^HTTP\/1\.1 502 Bad Gateway\r\n/);
      });
    }

    it("that end too early are cut, never completed", async () => {
      const answer = await answered("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi", true);
      assert.match(answer, /\r\n\r\nhi$/);
    });

    it("become 503 where the application closes without one", async () => {
      assert.match(await answered("", true), /^HTTP\/1\.1 503 /);
    });

    it("never reach the next request: bytes after the end close the application's connection", async () => {
      let connections = 0;
      rawApp = (socket) => {
        connections++;
        socket.on("data", () =>
          socket.write(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
          ),
        );
      };
      const socket = await mtls(mesh.member("raw").inboundPort, testSvid(mesh.ca, id("shop")));
      const request = `GET / HTTP/1.1\r\n${HOST}\r\n`;
      const answers = untilMatch(socket, /hi[\s\S]*hi$/);
      socket.write(request + request);
      assert.ok(!(await answers).includes("poison"));
      assert.equal(connections, 2);
      socket.destroy();
    });

    it("are asked for once more where the application closed an idle connection", async () => {
      let requests = 0;
      rawApp = (socket) =>
        socket.on("data", () => {
          requests++;
          // The second request on a connection meets a server that closes without a word.
          if (requests === 2) {
            socket.destroy();
          } else {
            socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
          }
        });
      const socket = await mtls(mesh.member("raw").inboundPort, testSvid(mesh.ca, id("shop")));
      const request = (method: string) => `${method} / HTTP/1.1\r\n${HOST}\r\n`;
      const first = untilMatch(socket, /hi$/);
      socket.write(request("GET"));
      await first;
      const second = untilMatch(socket, /hi$/);
      socket.write(request("GET"));
      await second;
      assert.equal(requests, 3);
      // A POST is not repeated.
      requests = 1;
      const third = untilMatch(socket, /503 /);
      socket.write(`POST / HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`);
      await third;
      assert.equal(requests, 2);
      socket.destroy();
    });
  });

  describe("WebSocket", () => {
    const upgrade = `GET /ws HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n`;
    const accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

    it("becomes a tunnel through both sidecars after the decision", async () => {
      rawApp = (socket) =>
        socket.once("data", () => {
          socket.write(`${accept}first`);
          socket.on("data", (chunk: Buffer) => socket.write(`<${chunk}>`));
          socket.on("end", () => socket.end());
        });
      const socket = await plain(mesh.member("shop").outboundPort("raw"));
      const switched = untilMatch(socket, /first<early>$/);
      // Bytes sent before the answer wait for it.
      socket.write(`${upgrade}early`);
      await switched;
      const echoed = untilMatch(socket, /^<hello>$/);
      socket.write("hello");
      await echoed;
      const closed = untilClosed(socket);
      socket.end();
      await closed;
    });

    it("that is not agreed to stays HTTP: what came early is the next request, decided on its own", async () => {
      const socket = await client();
      const answers = untilClosed(socket, `${upgrade}GET /denied HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`);
      const text = await answers;
      assert.deepEqual(decided, ["GET /ws", "GET /denied"]);
      assert.match(text, /RBAC: access denied$/);
    });
  });
});
