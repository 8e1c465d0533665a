import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DONE, FAULT, MAX_HEAD_BYTES, MORE } from "./fields.ts";
import { RequestHead } from "./request-head.ts";

function parse(text: string): RequestHead & { progress: number } {
  const head = new RequestHead();
  head.reset();
  const progress = head.parse(Buffer.from(text, "latin1"), 0);
  return Object.assign(head, { progress });
}

const HOST = "Host: shop\r\n";

const ACCEPTED: readonly [name: string, text: string, expected: Partial<RequestHead>][] = [
  ["the plainest request", `GET / HTTP/1.1\r\n${HOST}\r\n`, { method: "GET", target: "/", host: "shop", close: false }],
  ["a query", `GET /a?b=c#d HTTP/1.1\r\n${HOST}\r\n`, { target: "/a?b=c#d" }],
  ["a length", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\n`, { contentLength: 5, chunked: false }],
  ["chunked", `POST / HTTP/1.1\r\n${HOST}transfer-ENCODING: Chunked\r\n\r\n`, { chunked: true, contentLength: -1 }],
  ["no space before the value", `GET / HTTP/1.1\r\nHost:shop\r\n\r\n`, { host: "shop" }],
  ["space around the value", `GET / HTTP/1.1\r\nHost: \t shop \t \r\n\r\n`, { host: "shop" }],
  ["an empty value", `GET / HTTP/1.1\r\n${HOST}X-A:\r\n\r\n`, { count: 2 }],
  ["bytes above 0x7f in a value", `GET / HTTP/1.1\r\n${HOST}X-A: \xe9\r\n\r\n`, { count: 2 }],
  ["HTTP/1.0 with Host", `GET / HTTP/1.0\r\n${HOST}\r\n`, { minor: 0, close: true }],
  ["Connection: close", `GET / HTTP/1.1\r\n${HOST}Connection: foo, Close\r\n\r\n`, { close: true }],
  ["OPTIONS *", `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`, { method: "OPTIONS", target: "*" }],
  ["an IPv6 host", `GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n`, { host: "[::1]:80" }],
  [
    "WebSocket",
    `GET / HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    { websocket: true, removedCount: 2 },
  ],
  [
    "h2c is not offered on",
    `GET / HTTP/1.1\r\n${HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n`,
    { websocket: false, removedCount: 3 },
  ],
  [
    "Expect: 100-continue",
    `PUT / HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: 1\r\n\r\n`,
    { contentLength: 1 },
  ],
];

const REFUSED: readonly [name: string, text: string, fault: string][] = [
  [
    "length and chunked",
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`,
    "length-conflict",
  ],
  [
    "chunked and length",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n`,
    "length-conflict",
  ],
  ["two lengths", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 6\r\n\r\n`, "content-length"],
  [
    "the same length twice",
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 5\r\n\r\n`,
    "content-length",
  ],
  ["a list of lengths", `POST / HTTP/1.1\r\n${HOST}Content-Length: 5, 5\r\n\r\n`, "content-length"],
  ["a signed length", `POST / HTTP/1.1\r\n${HOST}Content-Length: +5\r\n\r\n`, "content-length"],
  ["a negative length", `POST / HTTP/1.1\r\n${HOST}Content-Length: -5\r\n\r\n`, "content-length"],
  ["a hexadecimal length", `POST / HTTP/1.1\r\n${HOST}Content-Length: 0x5\r\n\r\n`, "content-length"],
  ["an empty length", `POST / HTTP/1.1\r\n${HOST}Content-Length:\r\n\r\n`, "content-length"],
  ["a huge length", `POST / HTTP/1.1\r\n${HOST}Content-Length: 99999999999999999999\r\n\r\n`, "content-length"],
  ["two encodings", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n`, "transfer-encoding"],
  [
    "chunked twice",
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n`,
    "transfer-encoding",
  ],
  ["identity", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n\r\n`, "transfer-encoding"],
  ["a vertical tab before chunked", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: \x0bchunked\r\n\r\n`, "field-line"],
  ["chunked with a quote", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: "chunked"\r\n\r\n`, "transfer-encoding"],
  ["chunked in HTTP/1.0", `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`, "transfer-encoding"],
  ["space before the colon", `POST / HTTP/1.1\r\n${HOST}Content-Length : 5\r\n\r\n`, "field-line"],
  ["a folded line", `GET / HTTP/1.1\r\n${HOST}X-A: b\r\n c\r\n\r\n`, "field-line"],
  ["a folded line with a tab", `GET / HTTP/1.1\r\n${HOST}X-A: b\r\n\tc\r\n\r\n`, "field-line"],
  ["a space before the first field", `GET / HTTP/1.1\r\n ${HOST}\r\n`, "field-line"],
  ["bare LF after the request line", `GET / HTTP/1.1\n${HOST}\r\n`, "start-line"],
  ["bare LF after a field", `GET / HTTP/1.1\r\nHost: shop\nX-A: b\r\n\r\n`, "field-line"],
  ["bare LF at the end", `GET / HTTP/1.1\r\n${HOST}\n`, "field-line"],
  ["bare CR in a value", `GET / HTTP/1.1\r\n${HOST}X-A: b\rc\r\n\r\n`, "field-line"],
  ["bare CR at the end", `GET / HTTP/1.1\r\n${HOST}\rX`, "field-line"],
  ["NUL in a value", `GET / HTTP/1.1\r\n${HOST}X-A: b\0c\r\n\r\n`, "field-line"],
  ["NUL in a name", `GET / HTTP/1.1\r\n${HOST}X\0A: b\r\n\r\n`, "field-line"],
  ["DEL in a value", `GET / HTTP/1.1\r\n${HOST}X-A: \x7f\r\n\r\n`, "field-line"],
  ["no name", `GET / HTTP/1.1\r\n${HOST}: b\r\n\r\n`, "field-line"],
  ["no colon", `GET / HTTP/1.1\r\n${HOST}X-A\r\n\r\n`, "field-line"],
  ["a name with a slash", `GET / HTTP/1.1\r\n${HOST}X/A: b\r\n\r\n`, "field-line"],
  ["no Host", "GET / HTTP/1.1\r\nX-A: b\r\n\r\n", "host"],
  ["no Host in HTTP/1.0", "GET / HTTP/1.0\r\nX-A: b\r\n\r\n", "host"],
  ["an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "host"],
  ["two Hosts", `GET / HTTP/1.1\r\n${HOST}Host: other\r\n\r\n`, "host"],
  ["the same Host twice", `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`, "host"],
  ["a Host with a path", "GET / HTTP/1.1\r\nHost: shop/admin\r\n\r\n", "host"],
  ["a Host with a user", "GET / HTTP/1.1\r\nHost: a@shop\r\n\r\n", "host"],
  ["a Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "host"],
  ["an unknown method", `FOO / HTTP/1.1\r\n${HOST}\r\n`, "method"],
  ["a method in lower case", `get / HTTP/1.1\r\n${HOST}\r\n`, "method"],
  ["two spaces", `GET  / HTTP/1.1\r\n${HOST}\r\n`, "target"],
  ["two spaces before the version", `GET /  HTTP/1.1\r\n${HOST}\r\n`, "version"],
  ["a tab", `GET\t/ HTTP/1.1\r\n${HOST}\r\n`, "start-line"],
  ["no version", `GET /\r\n${HOST}\r\n`, "start-line"],
  ["HTTP/2.0", `GET / HTTP/2.0\r\n${HOST}\r\n`, "version"],
  ["HTTP/1.2", `GET / HTTP/1.2\r\n${HOST}\r\n`, "version"],
  ["http/1.1", `GET / http/1.1\r\n${HOST}\r\n`, "version"],
  ["HTTP/1.10", `GET / HTTP/1.10\r\n${HOST}\r\n`, "start-line"],
  ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "method"],
  ["an empty line first", `\r\nGET / HTTP/1.1\r\n${HOST}\r\n`, "start-line"],
  ["a byte above 0x7f in the target", `GET /\xe9 HTTP/1.1\r\n${HOST}\r\n`, "target"],
  ["NUL in the target", `GET /\0 HTTP/1.1\r\n${HOST}\r\n`, "start-line"],
  [
    "Connection: content-length",
    `POST / HTTP/1.1\r\n${HOST}Connection: content-length\r\nContent-Length: 5\r\n\r\n`,
    "connection-option",
  ],
  [
    "Connection: authorization",
    `GET / HTTP/1.1\r\n${HOST}Connection: close, Authorization\r\n\r\n`,
    "connection-option",
  ],
  ["another expectation", `GET / HTTP/1.1\r\n${HOST}Expect: 200-ok\r\n\r\n`, "expect"],
  ["101 fields", `GET / HTTP/1.1\r\n${HOST}${"a: b\r\n".repeat(100)}\r\n`, "too-many-fields"],
  ["a head too large", `GET / HTTP/1.1\r\n${HOST}a: ${"b".repeat(MAX_HEAD_BYTES)}\r\n\r\n`, "head-too-large"],
  ["a target without an end", `GET /${"b".repeat(MAX_HEAD_BYTES)}`, "head-too-large"],
  ["a method without an end", "A".repeat(100), "method"],
  ["TLS to a plaintext port", "\x16\x03\x01\x02\x00\x01", "start-line"],
];

describe("request head", () => {
  for (const [name, text, expected] of ACCEPTED) {
    it(`accepts ${name}`, () => {
      const head = parse(text);
      assert.equal(head.progress, DONE, `${head.fault}`);
      assert.equal(head.length, text.length);
      for (const [key, value] of Object.entries(expected)) {
        assert.equal(head[key as keyof RequestHead], value, key);
      }
    });
  }
  for (const [name, text, fault] of REFUSED) {
    it(`refuses ${name}`, () => {
      const head = parse(text);
      assert.equal(head.progress, FAULT);
      assert.equal(head.fault, fault);
    });
  }

  it("takes away what others may not say to the service", () => {
    const names = [
      "X-Forwarded-Client-Cert",
      "x_forwarded_client_cert",
      "X-Everyhop-Denial",
      "x-envoy-original-path",
      "X-Envoy_Internal",
    ];
    const head = parse(
      `GET / HTTP/1.1\r\n${HOST}${names.map((name) => `${name}: forged\r\n`).join("")}X-Ours: a\r\n\r\n`,
    );
    assert.equal(head.progress, DONE);
    assert.deepEqual([...head.removed.subarray(0, head.count)], [0, 1, 1, 1, 1, 1, 0]);
  });

  it("finds the lines of a field that are forwarded", () => {
    const bytes = Buffer.from(
      `GET / HTTP/1.1\r\n${HOST}X-A: 1\r\nConnection: x-b\r\nx-a: 2\r\nX-B: 3\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.1\r\n\r\n`,
    );
    const head = new RequestHead();
    head.reset();
    assert.equal(head.parse(bytes, 0), DONE);
    assert.deepEqual(head.values(bytes, 0, "x-a"), ["1", "2"]);
    assert.deepEqual(head.values(bytes, 0, "x-b"), []);
    assert.equal(head.forwardedFor(bytes, 0), "10.0.0.1");
  });

  it("gives the same result however the bytes are cut", () => {
    const texts = [...ACCEPTED, ...REFUSED].map(([, text]) => text).filter((text) => text.length < 2_000);
    fc.assert(
      fc.property(
        fc.constantFrom(...texts),
        fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 60 }),
        (text, sizes) => {
          const bytes = Buffer.from(text, "latin1");
          const whole = parse(text);
          const head = new RequestHead();
          head.reset();
          let progress: number = MORE;
          let end = 0;
          for (const size of [...sizes, bytes.length]) {
            end = Math.min(bytes.length, end + size);
            progress = head.parse(bytes.subarray(0, end), 0);
            if (progress !== MORE) {
              break;
            }
          }
          assert.equal(progress, whole.progress);
          assert.equal(head.fault, whole.fault);
          if (progress === DONE) {
            assert.deepEqual(
              [head.length, head.count, head.target, head.host],
              [whole.length, whole.count, whole.target, whole.host],
            );
            assert.deepEqual(head.spans.subarray(0, head.count * 4), whole.spans.subarray(0, whole.count * 4));
          }
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it("never throws on any bytes", () => {
    const piece = fc.oneof(
      fc.constantFrom("GET ", "/ ", "HTTP/1.1\r\n", "Host: a\r\n", "\r\n", ":", "\n", "\r", " "),
      fc.string({ unit: "binary-ascii" }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        const head = parse(pieces.join(""));
        assert.ok(head.progress === DONE ? head.length > 0 : true);
      }),
      { numRuns: 2_000 },
    );
  });
});
