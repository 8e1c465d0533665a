import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { afterEach, test } from "node:test";
import { type ApiEndpoint, callApi, describeEndpoint, followApi } from "./http-client.ts";
import { inClusterConfig, kubeClient } from "./kube.ts";
import { fakeKube } from "./kube-fixture.ts";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function serve(answer: (response: ServerResponse, path: string) => void): Promise<ApiEndpoint> {
  const server = createServer((request, response) => answer(response, request.url ?? ""));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { kind: "http", host: "127.0.0.1", port: (server.address() as AddressInfo).port };
}

const request = { path: "/x", timeoutMs: 5_000, maxBytes: 100 };

test("an answer is read whole, up to its bound", async () => {
  const endpoint = await serve((response, path) => response.end(path === "/x" ? '{"a":1}' : "x".repeat(101)));
  assert.deepEqual(await callApi(endpoint, request), { status: 200, body: { a: 1 } });
  await assert.rejects(callApi(endpoint, { ...request, path: "/long" }), /longer than 100 bytes/);
  assert.equal((await callApi(await serve((response) => response.end("{")), request)).body, undefined);
});

test("who does not answer is not waited for, and is named", async () => {
  const silent = await serve(() => {});
  await assert.rejects(
    callApi(silent, { ...request, timeoutMs: 20 }),
    /http:\/\/127.0.0.1:\d+\/x`: no answer within 20 ms/,
  );
  const trickling = await serve((response) => response.write("{"));
  await assert.rejects(callApi(trickling, { ...request, timeoutMs: 20 }), { code: "unavailable" });
  assert.equal(describeEndpoint({ kind: "https", host: "::1", port: 1, ca: null }), "https://[::1]:1");
  assert.equal(describeEndpoint({ kind: "unix", socket: "/a" }), "unix:///a");
});

test("a stream of documents is followed line by line, and given up when told so, also before it began", async () => {
  let held: ServerResponse | undefined;
  const endpoint = await serve((response) => {
    held = response;
    response.write('{"a":1}\n{"a"');
  });
  const seen: unknown[] = [];
  const end = new AbortController();
  let opened = 0;
  const on = { open: () => void opened++, document: (document: unknown) => void seen.push(document) };
  const following = followApi(endpoint, request, on, end.signal);
  while (seen.length < 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  held?.write(":2}\n\nnonsense\n");
  while (seen.length < 3) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual([opened, seen], [1, [{ a: 1 }, { a: 2 }, undefined]]);
  end.abort();
  await following;
  await followApi(endpoint, request, on, end.signal);
  assert.equal(opened, 1);
  const endless = await serve((response) => response.write("x".repeat(101)));
  await assert.rejects(followApi(endless, request, on, new AbortController().signal), /a line is longer/);
});

test("Kubernetes' refusals, absences and nonsense are told apart", async (t) => {
  const kube = await fakeKube();
  t.after(() => kube.close());
  kube.routes.set("/a", { kind: "A" });
  const client = kubeClient(kube.config);
  assert.deepEqual(await client.get("/a"), { kind: "A" });
  assert.equal(await client.get("/none"), null);
  const staleToken = join(dirname(kube.tokenFile), "stale");
  writeFileSync(staleToken, "stale\n");
  await assert.rejects(kubeClient({ ...kube.config, tokenFile: staleToken }).get("/a"), { code: "permission-denied" });
  await assert.rejects(kubeClient({ ...kube.config, tokenFile: kube.caFile }).get("/a"), { code: "unavailable" });
  await assert.rejects(kubeClient({ ...kube.config, host: "127.0.0.1" }).get("/a"), { code: "unavailable" });
  await assert.rejects(kubeClient({ ...kube.config, caFile: "/none" }).get("/a"), /cannot read/);
  assert.equal(inClusterConfig({}), null);
  assert.equal(inClusterConfig({ KUBERNETES_SERVICE_HOST: "h", KUBERNETES_SERVICE_PORT: "6443" })?.port, 6_443);
});
