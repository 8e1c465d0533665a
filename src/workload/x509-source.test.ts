import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import { type ClientReadableStream, status as Status } from "@grpc/grpc-js";
import { FakeClock } from "../core/base/clock.ts";
import { parseSpiffeId, parseTrustDomain } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { silentLog } from "../io/log.ts";
import { follow, type X509Update } from "./x509-source.ts";

const ID = parseSpiffeId("spiffe://example.com/web");
const TD = parseTrustDomain("example.com");

function svid(serial: string, notAfter: number): X509Svid {
  return { id: ID, chain: [], keyDer: new Uint8Array(), serial, notBefore: 0, notAfter, hint: "" };
}

/** A source whose streams the test speaks on. */
function harness() {
  const clock = new FakeClock();
  const streams: EventEmitter[] = [];
  let ended = 0;
  let askable = true;
  const source = follow<X509Update>({
    open() {
      if (!askable) {
        return null;
      }
      const stream = new EventEmitter();
      streams.push(stream);
      return { stream: stream as unknown as ClientReadableStream<X509Update>, end: () => ended++ };
    },
    read(update) {
      if (update.svids.length === 0) {
        throw new Error("empty");
      }
      return update;
    },
    choose: (svids) => svids[0] ?? null,
    log: silentLog,
    clock,
    random: () => 0.999,
  });
  const says = (serial: string, lifeMs = 60_000, bundles = new Map([[TD, [Uint8Array.of(1)]]])) =>
    streams.at(-1)?.emit("data", { svids: [svid(serial, clock.now() + lifeMs)], bundles });
  const fails = (code: number, details = "why") => streams.at(-1)?.emit("error", { code, details });
  return {
    clock,
    source,
    streams,
    says,
    fails,
    ended: () => ended,
    ask: (may: boolean) => {
      askable = may;
    },
  };
}

test("what the agent says is there for all who watch; a repetition is no news", () => {
  const { source, says } = harness();
  const seen: (string | undefined)[] = [];
  let bundles = 0;
  source.svid.watch((next) => seen.push(next?.serial));
  source.bundles.watch(() => bundles++);
  assert.deepEqual(source.state.value, { kind: "connecting" });
  says("a");
  says("a");
  says("b");
  assert.deepEqual([seen, bundles, source.state.value], [["a", "b"], 1, { kind: "ready" }]);
});

test("while the agent is away the last SVID stays, until it expires", () => {
  const { source, says, fails, clock } = harness();
  says("a", 10_000);
  fails(Status.UNAVAILABLE, "gone");
  assert.deepEqual([source.svid.value?.serial, source.state.value], ["a", { kind: "away", message: "gone" }]);
  clock.advance(9_999);
  assert.equal(source.svid.value?.serial, "a");
  clock.advance(2);
  assert.equal(source.svid.value, null);
});

test("a denial withdraws the SVID at once, and is asked about again with growing waits", () => {
  const { source, says, fails, streams, clock } = harness();
  says("a");
  for (const code of [Status.PERMISSION_DENIED, Status.NOT_FOUND]) {
    says("a");
    fails(code);
    assert.deepEqual([source.svid.value, source.svids.value, source.state.value.kind], [null, [], "denied"]);
    clock.advance(50);
  }
  const before = streams.length;
  const waits: number[] = [];
  for (let retry = 0; retry < 12; retry++) {
    const from = clock.now();
    fails(Status.PERMISSION_DENIED);
    const count = streams.length;
    while (streams.length === count) {
      clock.advance(10);
    }
    waits.push(clock.now() - from);
  }
  assert.equal(streams.length, before + 12);
  assert.ok(waits.every((wait, index) => index === 0 || wait >= (waits[index - 1] ?? 0)));
  assert.ok((waits.at(-1) ?? 0) <= 5_010 && (waits.at(-1) ?? 0) >= 2_500, waits.join());
});

test("an answer starts the waits from the beginning", () => {
  const { says, fails, streams, clock } = harness();
  for (let retry = 0; retry < 8; retry++) {
    fails(Status.UNAVAILABLE);
    clock.advance(10_000);
  }
  says("a");
  fails(Status.UNAVAILABLE);
  const count = streams.length;
  clock.advance(51);
  assert.equal(streams.length, count + 1);
});

test("a request that is wrong for good is not made again", () => {
  for (const code of [Status.INVALID_ARGUMENT, Status.UNIMPLEMENTED]) {
    const { source, fails, streams, clock } = harness();
    fails(code);
    clock.advance(60_000);
    assert.deepEqual([streams.length, source.state.value.kind], [1, "failed"]);
  }
});

test("an answer that is not acceptable changes nothing", () => {
  const { source, says, streams } = harness();
  says("a");
  streams[0]?.emit("data", { svids: [], bundles: new Map() });
  assert.equal(source.svid.value?.serial, "a");
});

test("a restart opens a new stream and leaves the old one, whose last words do not count", () => {
  const { source, says, streams, ended } = harness();
  says("a");
  source.restart();
  assert.deepEqual([streams.length, ended(), source.svid.value?.serial], [2, 1, "a"]);
  streams[0]?.emit("error", { code: Status.PERMISSION_DENIED, details: "" });
  assert.equal(source.svid.value?.serial, "a");
  says("b");
  assert.equal(source.svid.value?.serial, "b");
});

test("what cannot be asked yet waits for a restart", () => {
  const { source, streams, ask, fails, clock } = harness();
  ask(false);
  fails(Status.UNAVAILABLE);
  clock.advance(10_000);
  assert.equal(streams.length, 1);
  ask(true);
  source.restart();
  assert.equal(streams.length, 2);
});

test("after close nothing happens any more", () => {
  const { source, fails, streams, clock, ended } = harness();
  source.close();
  fails(Status.UNAVAILABLE);
  source.restart();
  clock.advance(60_000);
  assert.deepEqual([streams.length, ended()], [1, 1]);
});
