import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { BodyFraming } from "./framing.ts";

function chunked(text: string): { end: number; done: boolean; fault: string | null } {
  const body = new BodyFraming();
  body.start(-1, true, false);
  const end = body.take(Buffer.from(text, "latin1"), 0);
  return { end, done: body.done, fault: body.fault };
}

const GOOD: readonly [name: string, text: string][] = [
  ["no data", "0\r\n\r\n"],
  ["one chunk", "5\r\nhello\r\n0\r\n\r\n"],
  ["upper and lower hex", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"],
  ["leading zeros", "0005\r\nhello\r\n000\r\n\r\n"],
  ["an extension", '5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'],
  ["a trailer", "0\r\nX-Sum: 1\r\nX-Other:\r\n\r\n"],
];

const BAD: readonly [name: string, text: string][] = [
  ["no size", "\r\nhello\r\n0\r\n\r\n"],
  ["a size that is none", "g\r\n"],
  ["0x", "0x5\r\nhello\r\n"],
  ["a sign", "+5\r\nhello\r\n"],
  ["a space before the size", " 5\r\nhello\r\n"],
  ["a space after the size", "5 \r\nhello\r\n"],
  ["a size beyond 2^52", "fffffffffffffff\r\n"],
  ["bare LF after the size", "5\nhello\r\n0\r\n\r\n"],
  ["bare CR after the size", "5\rhello"],
  ["bare LF after the data", "5\r\nhello\n0\r\n\r\n"],
  ["more data than said", "5\r\nhello!\r\n0\r\n\r\n"],
  ["less data than said", "5\r\nhell\r\n0\r\n\r\n"],
  ["LF in an extension", "5;a\nb\r\nhello\r\n"],
  ["NUL in an extension", "5;a\0\r\nhello\r\n"],
  ["an endless extension", `5;${"a".repeat(2_000)}\r\nhello\r\n`],
  ["a trailer without a name", "0\r\n: b\r\n\r\n"],
  ["a folded trailer", "0\r\nX: a\r\n b\r\n\r\n"],
  ["a trailer that changes the framing", "0\r\nContent-Length: 5\r\n\r\n"],
  ["a trailer that forges identity", "0\r\nX-Forwarded-Client-Cert: By=x\r\n\r\n"],
  ["a trailer that forges identity with underscores", "0\r\nx_forwarded_client_cert: By=x\r\n\r\n"],
  ["endless trailers", `0\r\n${"X-A: b\r\n".repeat(2_000)}\r\n`],
  ["bare LF at the end", "0\r\n\n"],
];

describe("chunked bodies", () => {
  for (const [name, text] of GOOD) {
    it(`takes ${name}, and nothing after it`, () => {
      assert.deepEqual(chunked(`${text}GET / HTTP/1.1`), { end: text.length, done: true, fault: null });
    });
  }
  for (const [name, text] of BAD) {
    it(`refuses ${name}`, () => {
      assert.equal(chunked(text).end, -1);
    });
  }

  it("gives the same result however the bytes are cut", () => {
    const texts = [...GOOD, ...BAD].map(([, text]) => text);
    fc.assert(
      fc.property(fc.constantFrom(...texts), fc.array(fc.integer({ min: 1, max: 9 })), (text, sizes) => {
        const bytes = Buffer.from(text, "latin1");
        const body = new BodyFraming();
        body.start(-1, true, false);
        let at = 0;
        for (const size of [...sizes, bytes.length]) {
          const end = body.take(bytes.subarray(0, Math.min(bytes.length, at + size)), at);
          if (end < 0) {
            at = -1;
            break;
          }
          at = end;
        }
        assert.equal(at, chunked(text).end);
        assert.equal(body.done, chunked(text).done);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("other bodies", () => {
  it("ends after the length, whatever follows", () => {
    const body = new BodyFraming();
    body.start(5, false, false);
    assert.equal(body.take(Buffer.from("hel"), 0), 3);
    assert.equal(body.done, false);
    assert.equal(body.take(Buffer.from("loGET"), 0), 2);
    assert.equal(body.done, true);
  });

  it("has none without a length, or all that comes for an answer", () => {
    const body = new BodyFraming();
    body.start(-1, false, false);
    assert.equal(body.done, true);
    body.start(-1, false, true);
    assert.deepEqual([body.done, body.untilClose, body.take(Buffer.from("abc"), 0)], [false, true, 3]);
  });
});
