import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { duplexPair } from "node:stream";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { memoryKeyStore } from "../../io/keys.ts";
import { encodeFrame, FrameReader, MAX_FRAME_BYTES } from "../intent/frames.ts";
import type { Setup } from "../intent/intent.ts";
import { readIntent, writeIntent } from "../intent/intent-wire.ts";
import { OctetReader, OctetWriter } from "../intent/octets.ts";
import { OPERATION, writeSetup } from "../intent/wire.ts";
import { serveSigner } from "./serve.ts";
import { fileVault } from "./vault.ts";

function setup(t: TestContext): Setup {
  const logDir = mkdtempSync(join(tmpdir(), "everyhop-serve-"));
  t.after(() => rmSync(logDir, { recursive: true, force: true }));
  const ttl = { maxX509SvidTtlMs: 1, maxJwtSvidTtlMs: 1, maxCaTtlMs: 1 };
  return {
    trustDomain: "example.com",
    keys: { kind: "memory" },
    logDir,
    ceilings: { ...ttl, maxPerSecond: 1, downstream: false },
  };
}

const setupFrame = (of: Setup): Buffer => {
  const body = new OctetWriter();
  writeSetup(body, of);
  return encodeFrame(OPERATION.setup, 1, body.done());
};

/** Sends `bytes` to a signer; what it answered, and what ended it (null: the end of what was sent). */
async function send(bytes: Uint8Array): Promise<{ readonly fault: Error | null; readonly answers: Buffer }> {
  const [near, far] = duplexPair();
  const answers: Buffer[] = [];
  near.on("data", (chunk: Buffer) => answers.push(chunk));
  near.on("error", () => {});
  const edge = { now: Date.now, random: randomBytes, openVault: async () => fileVault(memoryKeyStore(), false) };
  const ended = serveSigner(far, edge);
  near.write(bytes);
  near.end();
  return { fault: await ended, answers: Buffer.concat(answers) };
}

test("what is no message of ours ends the signer, and nothing is answered", async (t) => {
  const good = setupFrame(setup(t));
  const twisted = (at: number, value: number): Buffer => {
    const frame = Buffer.from(good);
    frame[at] = value;
    return frame;
  };
  const tooLong = Buffer.alloc(8);
  tooLong.writeUInt32BE(MAX_FRAME_BYTES + 1);
  const cases: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ["another version", twisted(4, 2), /version 2/],
    ["an unknown operation", twisted(5, 99), /anything before the setup/],
    ["a frame that is too long", tooLong, /a frame of/],
    ["a frame that is too short", Buffer.from("0000000101", "hex"), /a frame of 1 bytes/],
    ["text", Buffer.from("GET / HTTP/1.1\r\n\r\n"), /a frame of/],
    ["a request before the setup", encodeFrame(OPERATION.createKey, 1, Buffer.of(0, 0)), /before the setup/],
    ["a second setup", Buffer.concat([good, good]), /second setup/],
    [
      "octets after the end",
      encodeFrame(OPERATION.setup, 1, Buffer.concat([good.subarray(10), Buffer.of(0)])),
      /after the end/,
    ],
    ["a place for keys that is none", encodeFrame(OPERATION.setup, 1, Buffer.from("0000000161ff", "hex")), /malformed/],
  ];
  for (const [name, bytes, message] of cases) {
    await t.test(name, async () => {
      const { fault, answers } = await send(bytes);
      assert.match(fault?.message ?? "", message);
      assert.equal(answers.length, 0);
    });
  }
});

test("the end of the socket ends the signer, in the middle of a frame too", async (t) => {
  const good = setupFrame(setup(t));
  assert.equal((await send(new Uint8Array())).fault, null);
  assert.equal((await send(good.subarray(0, good.length - 1))).fault, null);
});

test("fuzz: garbage of any form never throws, and is never answered with a signature", async (t) => {
  const good = setupFrame(setup(t));
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.nat({ max: 255 }), fc.uint8Array({ maxLength: 100 }))
      .map(([operation, body]) => encodeFrame(operation, 7, body)),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(bytes, { minLength: 1, maxLength: 4 }), fc.boolean(), async (pieces, after) => {
      const { answers } = await send(Buffer.concat([...(after ? [good] : []), ...pieces]));
      for (const { operation, body } of new FrameReader().push(answers)) {
        assert.ok(operation === OPERATION.answer || operation === OPERATION.refused);
        assert.ok(!Buffer.from(body).includes(Buffer.from("3082", "hex")), "no certificate");
      }
    }),
    { numRuns: 200 },
  );
});

test("intents survive the wire, and nothing else reads as one", () => {
  const hex = (bytes: number) =>
    fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((value) => Buffer.from(value).toString("hex"));
  const times = { notBeforeMs: fc.nat(), notAfterMs: fc.maxSafeInteger() };
  const text = fc.string({ unit: "grapheme", maxLength: 50 });
  const named = { authorityId: hex(20), serial: hex(16) };
  const key = { spki: fc.uint8Array().map((value) => Buffer.from(value)) };
  const intent = fc.oneof(
    fc.record({
      kind: fc.constant("x509-svid" as const),
      ...named,
      ...key,
      spiffeId: text,
      dnsNames: fc.array(text),
      ...times,
    }),
    fc.record({ kind: fc.constant("x509-ca" as const), ...named, ...key, ...times }),
    fc.record({ kind: fc.constant("x509-csr" as const), ...named }),
    fc.record({
      kind: fc.constant("jwt-svid" as const),
      ...named,
      spiffeId: text,
      audiences: fc.array(text),
      issuer: fc.option(text),
      includeJwtId: fc.boolean(),
      ...times,
    }),
  );
  fc.assert(
    fc.property(intent, (value) => {
      const to = new OctetWriter();
      writeIntent(to, value);
      const from = new OctetReader(to.done());
      assert.deepEqual(readIntent(from), { ...value });
      from.done();
      assert.throws(() => readIntent(new OctetReader(to.done().subarray(0, -1))));
    }),
  );
});
