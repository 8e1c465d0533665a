import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import type { ServerWritableStream } from "@grpc/grpc-js";
import { Cell } from "../../core/base/cell.ts";
import { silentLog } from "../../io/log.ts";
import { type CallEnd, NO_IDENTITY } from "./answer.ts";
import type { AttestedProcess } from "./attested.ts";
import type { IdentityCache } from "./cache.ts";
import { type Rendered, serveStream } from "./stream.ts";

/** A stream whose reader, process and cache are in the test's hands. */
function harness(first: Rendered) {
  const changed = new Cell(0);
  const written: string[] = [];
  const flushes: (() => void)[] = [];
  const ends: CallEnd[] = [];
  let rendered = first;
  let looks = 0;
  let gone = false;
  let closed = 0;
  let suspicion = (): void => {};
  const call = Object.assign(new EventEmitter(), {
    cancelled: false,
    destroyed: false,
    write(message: Buffer, flushed: () => void) {
      written.push(message.toString());
      flushes.push(flushed);
      return false;
    },
  });
  call.on("error", (end: CallEnd) => ends.push(end));
  const process = {
    stale: false,
    attestation: { selectors: [] },
    async current() {
      looks += 1;
      if (gone) {
        throw new Error("gone");
      }
      return { selectors: [] };
    },
    onSuspicion(tell: () => void) {
      suspicion = tell;
      return () => {
        suspicion = () => {};
      };
    },
    close: () => closed++,
  };
  serveStream({
    call: call as unknown as ServerWritableStream<unknown, unknown>,
    process: process as unknown as AttestedProcess,
    cache: { changed } as unknown as IdentityCache,
    render: () => rendered,
    lost: () => ({ code: 5, details: "lost" }),
    log: silentLog,
  });
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  return {
    written,
    ends,
    call,
    looks: () => looks,
    closed: () => closed,
    async says(next: Rendered) {
      rendered = next;
      changed.set(changed.value + 1);
      await settled();
    },
    async flush() {
      flushes.shift()?.();
      await settled();
    },
    async vanish() {
      gone = true;
      process.stale = true;
      suspicion();
      await settled();
    },
    settled,
  };
}

const message = (text: string): Rendered => ({ kind: "message", key: text, message: () => Buffer.from(text) });

test("each change is sent once, after a look at the process; what changes nothing is neither", async () => {
  const stream = harness(message("a"));
  await stream.settled();
  await stream.flush();
  assert.deepEqual([stream.written, stream.looks()], [["a"], 1]);
  await stream.says(message("a"));
  assert.deepEqual([stream.written, stream.looks()], [["a"], 1]);
  await stream.says(message("b"));
  assert.deepEqual([stream.written, stream.looks()], [["a", "b"], 2]);
});

test("a reader who does not read has one message waiting, and then gets the latest", async () => {
  const stream = harness(message("a"));
  await stream.settled();
  for (const text of ["b", "c", "d"]) {
    await stream.says(message(text));
  }
  assert.deepEqual(stream.written, ["a"]);
  await stream.flush();
  assert.deepEqual(stream.written, ["a", "d"]);
});

test("nothing is sent while there is nothing yet", async () => {
  const stream = harness({ kind: "wait" });
  await stream.settled();
  assert.deepEqual([stream.written, stream.ends], [[], []]);
  await stream.says(message("a"));
  assert.deepEqual(stream.written, ["a"]);
});

test("a withdrawal ends the stream, once, and lets the process go", async () => {
  const stream = harness(message("a"));
  await stream.settled();
  await stream.says({ kind: "end", end: NO_IDENTITY });
  await stream.says(message("b"));
  assert.deepEqual([stream.written, stream.ends, stream.closed()], [["a"], [NO_IDENTITY], 1]);
});

test("a process that is gone ends the stream, even where nothing else changed", async () => {
  const stream = harness(message("a"));
  await stream.settled();
  await stream.vanish();
  assert.deepEqual([stream.ends, stream.closed()], [[{ code: 5, details: "lost" }], 1]);
});

test("a caller that has left is told nothing", async () => {
  const stream = harness({ kind: "wait" });
  await stream.settled();
  stream.call.emit("cancelled");
  await stream.says(message("a"));
  await stream.vanish();
  assert.deepEqual([stream.written, stream.ends, stream.closed()], [[], [], 1]);
});
