import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Upstream } from "../core/api/snapshot.ts";
import { capturedUpstream, isOwnListener } from "./capture.ts";
import { id } from "./fixture.ts";

const upstream = (name: string, port: number, ...endpoints: string[]): Upstream => ({
  name,
  namespace: "prod",
  spiffeId: id(name),
  port,
  protocol: "http",
  labels: {},
  endpoints,
});

const UPSTREAMS = [
  upstream("shop", 8080, "10.1.0.2:15006"),
  upstream("cart", 8080, "10.1.0.3:15006", "10.1.0.4:15006"),
  upstream("six", 8080, "[fd00::2]:15006"),
  upstream("one", 9001, "127.0.0.1:20001"),
  upstream("two", 9002, "127.0.0.1:20002"),
  upstream("three", 9002, "127.0.0.1:20003"),
];

describe("captured connections", () => {
  const cases: readonly [destination: string, port: number, name: string | null][] = [
    ["10.1.0.2", 8080, "shop"],
    ["10.1.0.2", 15006, "shop"],
    ["10.1.0.4", 8080, "cart"],
    ["10.1.0.2", 22, null],
    ["10.1.0.9", 8080, null],
    ["fd00:0:0:0:0:0:0:2", 8080, "six"],
    ["127.0.0.1", 20003, "three"],
    ["127.0.0.1", 9001, "one"],
    // Two services behind one address and port: nobody can say which is meant.
    ["127.0.0.1", 9002, null],
  ];
  for (const [host, port, name] of cases) {
    it(`to ${host}:${port} mean ${name ?? "nobody"}`, () => {
      assert.equal(capturedUpstream({ host, port }, UPSTREAMS)?.name ?? null, name);
    });
  }

  it("to one of our own listeners are known for what they are", () => {
    const own = [
      { host: "0.0.0.0", port: 15001 },
      { host: "::1", port: 15006 },
    ];
    assert.equal(isOwnListener({ host: "10.1.0.1", port: 15001 }, own), true);
    assert.equal(isOwnListener({ host: "0:0:0:0:0:0:0:1", port: 15006 }, own), true);
    assert.equal(isOwnListener({ host: "10.1.0.1", port: 15006 }, own), false);
    assert.equal(isOwnListener({ host: "10.1.0.1", port: 8080 }, own), false);
  });
});
