import assert from "node:assert/strict";
import { test } from "node:test";
import { id, TestMesh, testEnforcer } from "./fixture.ts";
import { ask, echoApp } from "./fixture-client.ts";
import { Telemetry } from "./telemetry.ts";

/** Value of the one series of `name` whose labels have all of these. */
function value(telemetry: Telemetry, name: string, labels: Readonly<Record<string, string>>): number {
  const wanted = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
  const lines = telemetry.registry
    .text()
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`) && wanted.every((part) => line.includes(part)));
  assert.equal(lines.length, 1, `${name} ${JSON.stringify(labels)}: ${lines.join("\n")}`);
  return Number(lines[0]?.slice(lines[0].lastIndexOf(" ") + 1));
}

test("what alerts look at exists at 0 before it happens, and counts with Istio's labels when it does", async () => {
  const mesh = new TestMesh([
    { name: "shop", serve: echoApp },
    { name: "db", protocol: "tcp", serve: () => {} },
    { name: "caller", serve: () => {} },
  ]);
  mesh.enforcers.set(
    "shop",
    testEnforcer((_principal, _method, path) => path !== "/denied"),
  );
  await mesh.start();
  const { telemetry: shop } = mesh.member("shop").sidecar;
  const { telemetry: caller } = mesh.member("caller").sidecar;
  const { telemetry: db } = mesh.member("db").sidecar;
  const denied = {
    reporter: "destination",
    source_workload: "caller",
    destination_workload: "shop",
    response_code: "403",
  };
  const seen = { reporter: "source", source_workload: "caller", destination_workload: "shop", response_code: "403" };
  const refused = { source_workload: "unknown", destination_workload: "shop" };
  assert.equal(value(shop, "istio_requests_total", denied), 0);
  assert.equal(value(caller, "istio_requests_total", seen), 0);
  assert.equal(value(shop, "envoy_ssl_connection_error_total", refused), 0);
  assert.equal(value(shop, "everyhop_plaintext_refused_total", refused), 0);
  assert.equal(value(db, "everyhop_tcp_denied_total", { source_workload: "caller", destination_workload: "db" }), 0);
  const port = mesh.member("caller").outboundPort("shop");
  await ask(port, { path: "/denied" });
  await ask(port, { path: "/fine" });
  const istio = {
    ...denied,
    source_workload_namespace: "prod",
    source_principal: id("caller"),
    source_app: "caller",
    destination_principal: id("shop"),
    destination_service: "shop.prod",
    request_protocol: "http",
    connection_security_policy: "mutual_tls",
  };
  assert.equal(value(shop, "istio_requests_total", istio), 1);
  assert.equal(value(caller, "istio_requests_total", { ...seen, connection_security_policy: "unknown" }), 1);
  assert.equal(value(shop, "istio_requests_total", { ...denied, response_code: "200" }), 1);
  assert.equal(value(shop, "istio_request_duration_milliseconds_count", { ...denied, response_code: "200" }), 1);
  assert.ok(value(shop, "istio_response_bytes_sum", { ...denied, response_code: "200" }) > 50);
  assert.equal(value(shop, "everyhop_denials_total", { source_workload: "caller", reason: "no-allow-matched" }), 1);
  await mesh.close();
});

test("a status that nobody specified counts as its class", () => {
  const telemetry = new Telemetry();
  const series = telemetry.http("source", null, null, "none");
  for (let status = 200; status < 600; status++) {
    series.record(status, "-", 1, 1, 1);
  }
  assert.equal(value(telemetry, "istio_requests_total", { response_code: "5xx" }), 100 - 11);
  assert.ok([...telemetry.families.requests.entries()].length < 70);
});
