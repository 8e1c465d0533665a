import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { TestMesh, testEnforcer } from "./fixture.ts";
import { httpApp, plain, untilClosed } from "./fixture-client.ts";

/** Pieces of requests, right ones and all the ways to get them slightly wrong. */
const PIECES = [
  "GET /a HTTP/1.1\r\n",
  "POST /b HTTP/1.1\r\n",
  "GET /denied HTTP/1.1\r\n",
  "GET /denied HTTP/1.0\r\n",
  "Host: shop\r\n",
  "Host: shop\r\n\r\n",
  "Host: shop\r\nContent-Length: 0\r\n\r\n",
  "Host: shop\r\nTransfer-Encoding: chunked\r\n\r\n",
  "Content-Length: 5\r\n",
  "Content-Length: 29\r\n\r\n",
  "Content-Length : 5\r\n",
  "Transfer-Encoding: chunked\r\n",
  "Transfer-Encoding: chunked\r\n\r\n",
  "Transfer-Encoding: identity, chunked\r\n",
  "Connection: close\r\n",
  "Connection: Upgrade\r\nUpgrade: websocket\r\n",
  "Expect: 100-continue\r\n",
  "\r\n",
  "\n",
  "\r",
  "\r\n\r\n",
  "0\r\n\r\n",
  "0\r\n",
  "5\r\nhello\r\n",
  "5;x=\r\nhello\r\n",
  "5\nhello\n",
  "1c\r\nGET /denied HTTP/1.1\r\nX: y\r\n\r\n",
  "hello",
  " folded\r\n",
  "\0",
  "X-A: b\r\n",
];

describe("no byte sequence makes the service see a request that was not decided on", () => {
  let decided: string[] = [];
  let seen: string[] = [];
  const mesh = new TestMesh([
    {
      name: "shop",
      serve: httpApp((request, response) => {
        seen.push(`${request.method} ${request.url}`);
        request.resume();
        request.on("end", () => response.end("ok"));
      }),
    },
  ]);
  before(async () => {
    mesh.enforcers.set(
      "shop",
      testEnforcer((_principal, method, path) => {
        const allowed = path?.startsWith("/denied") !== true;
        if (allowed) {
          decided.push(`${method} ${path}`);
        }
        return allowed;
      }, "PERMISSIVE"),
    );
    await mesh.start();
  });
  after(() => mesh.close());

  /** What Node's own parser saw behind the sidecar must be what was decided, in order; the last one may not have got there. */
  const check = async (bytes: Buffer, cuts: readonly number[]): Promise<void> => {
    [decided, seen] = [[], []];
    const socket = await plain(mesh.member("shop").inboundPort);
    const answer = untilClosed(socket);
    let at = 0;
    for (const size of cuts) {
      socket.write(bytes.subarray(at, at + size));
      at += size;
      await new Promise((resolve) => setImmediate(resolve));
    }
    socket.end(bytes.subarray(at));
    const text = await answer;
    assert.deepEqual(seen, decided.slice(0, seen.length), text);
    assert.ok(seen.length >= decided.length - 1, text);
    assert.ok(!seen.some((request) => request.includes("denied")));
    assert.ok(text === "" || text.startsWith("HTTP/1.1 "), text);
  };

  it("made of requests and broken pieces of them", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...PIECES), { minLength: 1, maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 6 }),
        (pieces, cuts) => check(Buffer.from(pieces.join(""), "latin1"), cuts),
      ),
      { numRuns: 150 },
    );
  });

  it("made of good requests with one byte changed", async () => {
    const good = Buffer.from(
      "POST /b HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\nGET /denied HTTP/1.1\r\nX: y\r\n\r\n\r\n0\r\n\r\n" +
        "POST /c HTTP/1.1\r\nHost: shop\r\nContent-Length: 28\r\n\r\nGET /denied HTTP/1.1\r\nX: y\r\n\r\nGET /a HTTP/1.1\r\nHost: shop\r\n\r\n",
    );
    await fc.assert(
      fc.asyncProperty(
        fc.nat(good.length - 1),
        fc.oneof(fc.constantFrom(0, 9, 10, 13, 32, 48, 58, 59), fc.integer({ min: 0, max: 255 })),
        async (at, byte) => {
          const bytes = Buffer.from(good);
          bytes[at] = byte;
          await check(bytes, []);
        },
      ),
      { numRuns: 150 },
    );
  });
});
