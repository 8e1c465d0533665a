import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { AccessLog, jsonString, timestamp } from "./access-log.ts";
import { id, TestMesh, testEnforcer, testSvid } from "./fixture.ts";
import { ask, echoApp, mtls, plain, untilClosed } from "./fixture-client.ts";

describe("the access log", () => {
  const folder = mkdtempSync(join(tmpdir(), "everyhop-test-"));
  const file = join(folder, "access.log");
  const mesh = new TestMesh([
    { name: "shop", serve: echoApp },
    { name: "caller", serve: () => {} },
  ]);
  before(async () => {
    mesh.enforcers.set(
      "shop",
      testEnforcer((_principal, _method, path) => path !== "/denied"),
    );
    await mesh.start({ accessLog: file });
  });
  after(() => rmSync(folder, { recursive: true }));

  it("has one line of JSON for each request and connection, with the identity that was proven and the decision", async () => {
    const port = mesh.member("caller").outboundPort("shop");
    const denied = await ask(port, { path: "/denied" });
    await ask(port, { path: "/fine?a=%22b%22" });
    const { inboundPort } = mesh.member("shop");
    await untilClosed(await plain(inboundPort), "GET / HTTP/1.1\r\n\r\n");
    await mtls(inboundPort, null).then((socket) => untilClosed(socket));
    await untilClosed(await mtls(inboundPort, testSvid(mesh.ca, id("caller"))), "GET /\xe9 HTTP/1.1\r\n\r\n");
    await mesh.close();
    const lines = readFileSync(file, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const find = (wanted: Record<string, unknown>) => {
      const found = lines.filter((line) => Object.entries(wanted).every(([key, value]) => line[key] === value));
      assert.equal(found.length, 1, `${JSON.stringify(wanted)} in ${JSON.stringify(lines)}`);
      return found[0] as Record<string, unknown>;
    };
    const inbound = find({ direction: "inbound", path: "/denied" });
    assert.deepEqual(
      [inbound.response_code, inbound.response_flags, inbound.decision, inbound.reason, inbound.source_principal],
      [403, "DENY", "deny", "no-allow-matched", id("caller")],
    );
    assert.equal(inbound.denial, denied.headers["x-everyhop-denial"]);
    assert.equal(inbound.snapshot_version, 2);
    const outbound = find({ direction: "outbound", path: "/denied" });
    assert.equal(outbound.request_id, inbound.request_id);
    assert.deepEqual(
      [outbound.response_code, outbound.destination_principal, outbound.upstream_cluster],
      [403, id("shop"), "shop.prod"],
    );
    const fine = find({ direction: "inbound", path: "/fine?a=%22b%22" });
    assert.deepEqual([fine.response_code, fine.decision, fine.method, fine.authority], [200, "allow", "GET", "shop"]);
    assert.equal(find({ response_code_details: "plaintext_refused" }).source_principal, null);
    assert.equal(find({ response_code_details: "no-certificate" }).response_flags, "TLS_FAILURE");
    const unread = find({ response_code: 400 });
    assert.deepEqual([unread.response_flags, unread.source_principal], ["DPE", id("caller")]);
  });

  it("drops lines, and counts them, where nobody takes them", async () => {
    const dropped = { value: 0 };
    const log = new AccessLog(join(folder, "flood.log"), dropped);
    const line = "x".repeat(1_000);
    for (let i = 0; i < 20_000; i++) {
      log.write(line);
    }
    assert.ok(dropped.value > 10_000);
    await log.close();
    const written = readFileSync(join(folder, "flood.log"), "latin1").split("\n").length - 1;
    assert.equal(written + dropped.value, 20_000);
  });

  it("writes any string as ASCII JSON", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 0xffff })), (units) => {
        const text = String.fromCharCode(...units);
        const json = jsonString(text);
        assert.match(json, /^[\x20-\x7e]*$/);
        assert.equal(JSON.parse(json), text);
      }),
    );
  });

  it("writes times with milliseconds", () => {
    for (const ms of [0, 1, 12, 999, 1_000, 1_893_456_000_123, 1_893_456_000_999.7]) {
      assert.equal(timestamp(ms), new Date(Math.floor(ms)).toISOString());
    }
  });
});
