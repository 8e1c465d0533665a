import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EveryhopError } from "../core/base/errors.ts";
import { loadProxyConfig } from "./proxy-config.ts";

const folder = mkdtempSync(join(tmpdir(), "everyhop-test-"));
after(() => rmSync(folder, { recursive: true }));

const GOOD = `service: shop
namespace: prod
trustDomain: example.com
agentSocket: unix:///run/agent.sock
brokerSocket: /run/broker.sock
control: "[::1]:15010"
workload: {spiffeId: spiffe://example.com/ns/prod/sa/shop, pidFile: shop.pid}
inbound: 0.0.0.0:15006
app: 127.0.0.1:8080
outbound: {db: 127.0.0.1:15432, data/cache: "127.0.0.1:0"}
capture: {outbound: 127.0.0.1:15001}
metrics: 127.0.0.1:15020
`;

function load(text: string) {
  const file = join(folder, "proxy.yaml");
  writeFileSync(file, text);
  return loadProxyConfig(file);
}

/** The issues of a text that is not valid, as `line:column path: message`. */
function issues(text: string): string[] {
  try {
    load(text);
  } catch (error) {
    assert.ok(error instanceof EveryhopError && error.code === "config-invalid");
    return error.issues.map(({ line, column, path, message }) => `${line}:${column} ${path}: ${message}`);
  }
  return [];
}

test("a sidecar's configuration is read", () => {
  const config = load(GOOD);
  assert.deepEqual(config.inbound, { host: "0.0.0.0", port: 15006 });
  assert.deepEqual(config.outbound.db, { host: "127.0.0.1", port: 15432 });
  assert.deepEqual(config.capture, { outbound: { host: "127.0.0.1", port: 15001 } });
  assert.deepEqual(config.control, ["[::1]:15010"]);
  assert.equal(config.workload.pidFile, join(folder, "shop.pid"));
  assert.deepEqual([config.accessLog, config.logLevel, config.workload.pid], ["-", "info", null]);
});

test("what is wrong is said with its place", () => {
  assert.deepEqual(issues(GOOD.replace("inbound:", "inbonud:")), [
    "8:1 inbonud: unknown field `inbonud`",
    "1:1 inbound: `inbound` is missing",
  ]);
  assert.deepEqual(issues(GOOD.replace("127.0.0.1:8080", "127.0.0.1")), ["9:6 app: `127.0.0.1` is not `host:port`"]);
  assert.deepEqual(issues(GOOD.replace("127.0.0.1:8080", "127.0.0.1:80800")), [
    "9:6 app: `127.0.0.1:80800` is not `host:port`",
  ]);
  assert.deepEqual(issues(GOOD.replace("unix:///run/agent.sock", "agent.sock")), [
    "4:14 agentSocket: `agent.sock` is not an absolute path",
  ]);
  assert.deepEqual(issues(GOOD.replace("sa/shop,", "sa//shop,")), [
    "7:22 workload.spiffeId: `spiffe://example.com/ns/prod/sa//shop` is not a SPIFFE ID: path cannot contain empty segments",
  ]);
  assert.deepEqual(issues(GOOD.replace("pidFile: shop.pid", "pid: 1, pidFile: shop.pid")), [
    "7:11 workload: `pid` and `pidFile` are both given",
  ]);
  assert.deepEqual(issues(GOOD.replace(", pidFile: shop.pid", "")), ["7:11 workload: `pid` or `pidFile` is missing"]);
  assert.deepEqual(issues(""), ["undefined:undefined undefined: the file is empty"]);
  assert.throws(() => loadProxyConfig(join(folder, "none.yaml")), /cannot read/);
});
