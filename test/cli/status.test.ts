import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { DOMAIN, eventually, memoryIdentities, testControl, testService } from "../../src/control/fixture.ts";
import { workloadId } from "../../src/core/spiffe/id.ts";
import { Admin } from "../../src/gen/everyhop/admin/admin_pb.js";
import { listenUnix } from "../../src/io/rpc/listen.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const PRINTER = "spiffe://example.com/ns/back/sa/printer";

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A control plane behind an admin socket, and the CLI in a process of its own. */
async function mesh(t: { after(clean: () => Promise<void>): void }) {
  const services = [testService("payment-service"), testService("printer", { namespace: "back" })];
  const identities = memoryIdentities([{ spiffeId: workloadId(DOMAIN, "back", "batch"), svid: null }]);
  const test = await testControl(t, { services, identities });
  const socket = join(test.dir, "admin.sock");
  const listener = await listenUnix(socket, 0o600, {
    services: [{ service: Admin, handlers: test.control.admin }],
    identify: () => null,
  });
  t.after(() => listener.close());
  const run = (...args: string[]): Promise<Ran> =>
    new Promise((resolve) => {
      const all = [MAIN, ...args, "--admin-socket", socket];
      const child = execFile(process.execPath, all, (_error, out, err) =>
        resolve({ code: child.exitCode ?? -1, out, err }),
      );
    });
  return { ...test, run };
}

test("status, why, kill and restore over the admin socket", async (t) => {
  const { run, sidecar, control } = await mesh(t);
  const first = sidecar("production/payment-service");
  const second = sidecar("back/printer", { closes: 3 });
  await Promise.all([first, second].map((each) => each.until((s) => s.pushes === 1)));
  first.report({
    denials: [
      {
        id: "d-1",
        source: PRINTER,
        port: 8080,
        method: "GET",
        path: "/x",
        reason: "deny-rule",
        rule: 1,
        policy: "a/b",
      },
    ],
  });
  await eventually(async () => (await control.status()).denials.length === 1);

  const status = JSON.parse((await run("status", "--json")).out);
  assert.equal(status.version, 1);
  assert.deepEqual(
    status.proxies.map(({ service, version, state, error }: Record<string, unknown>) => [
      service,
      version,
      state,
      error,
    ]),
    [
      ["payment-service", 1, "synced", null],
      ["printer", 1, "synced", null],
    ],
  );
  assert.equal(status.denials[0].id, "d-1");
  assert.match((await run("status")).out, /^mesh example\.com, version 1: 2 of 2 sidecars in sync$/m);

  const why = JSON.parse((await run("why", "d-1", "--json")).out);
  assert.deepEqual([why.source, why.rule, why.nearestMiss, why.host], [PRINTER, 1, null, null]);
  const lost = await run("why", "d-2");
  assert.equal(lost.code, 1);
  assert.match(lost.err, /no denial has the id `d-2`\n {2}hint: did you mean `d-1`\?/);

  const killed = await run("kill", PRINTER, "--json");
  const document = JSON.parse(killed.out);
  assert.deepEqual(Object.keys(document).sort(), [
    "confirmed",
    "connectionsClosed",
    "ms",
    "order",
    "spiffeId",
    "total",
    "unconfirmed",
  ]);
  assert.deepEqual([killed.code, document.confirmed, document.total, document.connectionsClosed], [0, 2, 2, 3]);
  const restored = await run("restore", PRINTER);
  assert.deepEqual([restored.code, restored.err], [0, ""]);
  assert.match(
    restored.out,
    /^spiffe:\/\/example\.com\/ns\/back\/sa\/printer is restored: confirmed by 2 of 2 sidecars/,
  );
});

test("a kill that not all confirm ends with 1; what may not be killed with 2 and a reason", async (t) => {
  const { run, sidecar } = await mesh(t);
  await sidecar("production/payment-service").until((s) => s.pushes === 1);
  const half = await run("kill", PRINTER, "--json");
  assert.equal(half.code, 1);
  assert.deepEqual(JSON.parse(half.out).unconfirmed, ["printer"]);
  for (const [id, code, message] of [
    [
      "spiffe://example.com/ns/back/sa/priinter",
      2,
      /nothing in this mesh has the identity .*\n {2}hint: did you mean `spiffe:\/\/example\.com\/ns\/back\/sa\/printer`\?; `--force`/,
    ],
    ["spiffe://example.com/spire/server", 2, /is the server/],
    ["spiffe://example.com/everyhop/sidecar", 2, /every sidecar opens the control plane/],
    ["spiffe://example.com/spire/agent/join_token/x", 2, /is an agent.*\n {2}hint: `everyhop agent ban`/],
    ["example.com/ns/back/sa/printer", 2, /is not a SPIFFE ID: scheme is missing/],
  ] as const) {
    const refused = await run("kill", id);
    assert.equal(refused.code, code);
    assert.match(refused.err, message);
  }
  const none = await run("restore", "spiffe://example.com/ns/production/sa/payment-service");
  assert.deepEqual([none.code, none.out], [2, ""]);
});

test("a mesh that is not there is said so", async (t) => {
  const { dir } = await testControl(t);
  const gone = await new Promise<Ran>((resolve) => {
    const args = [MAIN, "status", "--admin-socket", join(dir, "none.sock"), "--json"];
    const child = execFile(process.execPath, args, (_error, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    );
  });
  assert.equal(gone.code, 4);
  assert.equal(JSON.parse(gone.out).error.code, "unavailable");
});
