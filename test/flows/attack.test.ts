import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { MeshDocument } from "../../src/run/up/document.ts";
import { without } from "../peers.ts";
import { EXAMPLE, everyhop, folder, run, until, up } from "./mesh.ts";

interface Attempt {
  readonly attempt: string;
  readonly through: boolean;
  readonly result: string;
  readonly note?: boolean;
}

/** Bytes that reached each service so far. */
function received({ stateDir, services }: MeshDocument): Record<string, number> {
  const sizes = Object.keys(services).map((name): [string, number] => {
    const file = join(stateDir, "services", name, "received.bin");
    return [name, statSync(file, { throwIfNoEntry: false })?.size ?? 0];
  });
  return Object.fromEntries(sizes);
}

/** Customers' requests, as the gateway gets them: a payment, a refund, the users. */
async function customers(mesh: MeshDocument, ask: (path: string, body?: object) => Promise<unknown>): Promise<void> {
  const { id } = (await ask("/checkout", { user: "alice", amount: 1250, currency: "EUR" })) as { id: number };
  assert(Number.isInteger(id));
  assert.deepEqual(await ask("/refund", { payment: id }), { payment: id, refunded: true });
  assert.deepEqual(
    ((await ask("/users")) as { name: string }[]).map(({ name }) => name),
    ["alice", "bob"],
  );
  // It went through the wire: the database saw the statement, in PostgreSQL's own protocol.
  const wire = readFileSync(join(mesh.stateDir, "services", "postgres-proxy", "received.bin"), "latin1");
  assert.match(wire, /INSERT INTO payments/);
}

async function attack(t: TestContext, dir: string, mesh: MeshDocument): Promise<readonly Attempt[]> {
  const before = received(mesh);
  const { code, stdout, stderr } = await run([process.execPath, join(EXAMPLE, "attack.mjs"), "--json", "--dir", dir]);
  const attempts = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Attempt);
  assert.deepEqual(
    attempts.filter(({ through }) => through),
    [],
  );
  assert.equal(code, 0, stderr);
  // printer itself heard nothing either: the back door is no part of the mesh.
  assert.deepEqual(received(mesh), before, "a denied attempt left a byte");
  t.diagnostic(`${attempts.length} attempts`);
  return attempts;
}

const named = (attempts: readonly Attempt[], pattern: RegExp): number =>
  attempts.filter(({ attempt }) => pattern.test(attempt)).length;

/** Sum over the lines of a series whose labels match. */
async function total(metrics: string, series: RegExp): Promise<number> {
  const text = await (await fetch(metrics)).text();
  const lines = text.split("\n").filter((line) => series.test(line));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

test("on loopback the attacker gets nowhere, no byte arrives, and each attempt is counted and logged", async (t) => {
  const state = folder(t);
  const mesh = await up(t, EXAMPLE, { flags: ["--state", state] });
  await customers(mesh, async (path, body) => {
    const request = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    return (await fetch(`http://${mesh.services["api-gateway"]?.app}${path}`, request)).json();
  });

  const attempts = await attack(t, EXAMPLE, mesh);
  assert(attempts.length > 100, String(attempts.length));
  const own = attempts.find(({ note }) => note === true);
  assert.equal(own?.result, "spiffe://example.com/ns/office/sa/printer", "the attacker really has printer's SVID");
  for (const kind of [
    /own valid SVID/,
    /without a certificate$/,
    /expired/,
    /another CA/,
    /, plaintext$/,
    /own sidecar/,
  ]) {
    assert(named(attempts, kind) >= 4, `${kind}: ${named(attempts, kind)}`);
  }
  assert(named(attempts, /^payment-service: /) > 40);
  assert(named(attempts, /own command and ask/) === 5);

  const { metrics = "" } = mesh.services["payment-service"] ?? {};
  const denials = await total(metrics, /^istio_requests_total\{.*source_workload="printer".*response_code="403"/);
  assert(denials >= named(attempts, /^payment-service: /) / 2, `${denials} denials counted`);
  assert((await total(metrics, /^envoy_ssl_connection_error_total/)) >= 6);
  const log = readFileSync(join(state, "logs", "sidecars", "payment-service.log"), "utf8");
  const denied = log.split("\n").filter((line) => line.includes('"decision":"deny"'));
  assert(denied.length >= denials);
  const { denial } = JSON.parse(denied.find((line) => line.includes("ns/office/sa/printer")) ?? "{}");
  const why = JSON.parse((await everyhop(["why", denial, "--dir", EXAMPLE, "--json"])).stdout);
  assert.deepEqual(
    [why.source, why.destination, why.policy],
    ["spiffe://example.com/ns/office/sa/printer", "payment-service", "production/payment-service-deny-all"],
  );
});

test("isolated, going around the sidecar fails in the kernel", { skip: without("netns", "curl") }, async (t) => {
  const state = folder(t);
  const mesh = await up(t, EXAMPLE, { flags: ["--isolate", "--state", state] });
  await customers(mesh, async (path, body) => {
    const data = body === undefined ? [] : ["-d", JSON.stringify(body)];
    const script = 'curl -sm 20 "$@"';
    const url = `http://127.0.0.1:8080${path}`;
    const { stdout } = await everyhop([
      "exec",
      "api-gateway",
      "--dir",
      EXAMPLE,
      "--",
      "sh",
      "-c",
      script,
      "sh",
      ...data,
      url,
    ]);
    return JSON.parse(stdout);
  });
  const attempts = await attack(t, EXAMPLE, mesh);
  for (const kind of [/^UDP/, /^out of the mesh/, /^\/proc\/\d+\/mem/, /firewall/, /^the mesh's/, /admin socket/]) {
    assert(named(attempts, kind) > 0, String(kind));
  }
  // What holds the attacker is the kernel: the process has no right and cannot get one.
  const status = readFileSync(`/proc/${mesh.services.printer?.pid}/status`, "utf8");
  assert.match(status, /^NoNewPrivs:\s*1$/m);
  assert.match(status, /^CapBnd:\s*0+$/m);
  assert.match(status, /^Uid:\s*(?!0\b)(\d+)\s+\1\s+\1\s+\1$/m);
  const ids = Object.values(mesh.services).map(
    ({ pid }) => /^Uid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1],
  );
  assert.equal(new Set(ids).size, ids.length);

  assert.equal((await everyhop(["down", EXAMPLE])).code, 0);
  await until("no namespace, link or rule is left", async () => {
    const seen = await Promise.all([run(["ip", "netns", "list"]), run(["ip", "link"]), run(["nft", "list", "tables"])]);
    return !/evh|everyhop_/.test(seen.map(({ stdout }) => stdout).join("\n"));
  });
});
