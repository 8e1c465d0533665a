import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { credentials } from "@grpc/grpc-js";
import { SecretDiscoveryService } from "../../src/gen/envoy/service/secret/v3/sds_pb.js";
import { makeClient } from "../../src/io/rpc/adapter.ts";
import type { MeshDocument } from "../../src/run/up/document.ts";
import { cleanUp, everyhop, folder, processesNaming, SMALL_MESH, until, up } from "./mesh.ts";

const url = (mesh: MeshDocument, path: string): string => `http://${mesh.services.web?.outbound.echo}${path}`;
const post = async (mesh: MeshDocument, path: string): Promise<number> =>
  (await fetch(url(mesh, path), { method: "POST" })).status;

test("a saved policy is in force at once; a broken one is refused with its place, and the last good state stays", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const mesh = await up(t, dir);
  const file = join(dir, "policies/policies.yaml");
  const text = readFileSync(file, "utf8");
  assert.deepEqual([await post(mesh, "/allowed"), await post(mesh, "/more")], [200, 403]);

  writeFileSync(file, text.replace("[/allowed]", "[/allowed, /more]"));
  const savedAt = performance.now();
  await until("the change is in force", async () => (await post(mesh, "/more")) === 200, 10_000);
  t.diagnostic(`in force after ${Math.round(performance.now() - savedAt)} ms`);

  writeFileSync(file, text.replace("paths:", "pahts:"));
  const problems = async () => JSON.parse((await everyhop(["status", "--dir", dir, "--json"])).stdout).problems;
  await until("the fault is told", async () => (await problems()).length > 0, 10_000);
  const [problem] = await problems();
  assert.deepEqual([problem.file, problem.line], ["policies/policies.yaml", 14]);
  assert.match(problem.hint, /did you mean `paths`/);
  assert.deepEqual([await post(mesh, "/allowed"), await post(mesh, "/more")], [200, 200]);
});

test("kill cuts an identity off and says who confirmed; restore undoes it", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const mesh = await up(t, dir);
  assert.equal(await post(mesh, "/allowed"), 200);
  const id = mesh.services.web?.spiffeId ?? "";
  const killed = JSON.parse((await everyhop(["kill", id, "--dir", dir, "--json"])).stdout);
  assert.deepEqual([killed.spiffeId, killed.confirmed, killed.total, killed.unconfirmed], [id, 2, 2, []]);
  assert.notEqual(await post(mesh, "/allowed").catch(() => 0), 200);
  const { kills } = JSON.parse((await everyhop(["status", "--dir", dir, "--json"])).stdout);
  assert.deepEqual(
    kills.map(({ spiffeId }: { spiffeId: string }) => spiffeId),
    [id],
  );
  const restored = await everyhop(["restore", id, "--dir", dir, "--json"]);
  assert.equal(restored.code, 0, restored.stderr);
  await until("it may call again", async () => (await post(mesh, "/allowed").catch(() => 0)) === 200);
});

/** Asks over and over on kept connections until stopped; gives what was not 200, and how many connections were made. */
function steadyLoad(mesh: MeshDocument, connections: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const failures: string[] = [];
  const sockets = new Set<unknown>();
  let asked = 0;
  let running = true;
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const asking = request(url(mesh, "/allowed"), { method: "POST", agent }, (response) => {
        if (response.statusCode !== 200) {
          failures.push(`${response.statusCode} at request ${asked}`);
        }
        response.resume().once("end", resolve);
      });
      asking.once("socket", (socket) => sockets.add(socket));
      asking.once("error", (error) => {
        failures.push(`${error.message} at request ${asked}`);
        resolve();
      });
      asking.end("x");
    });
  const loops = Array.from({ length: connections }, async () => {
    while (running) {
      asked += 1;
      await one();
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  });
  return {
    asked: () => asked,
    async stop() {
      running = false;
      await Promise.all(loops);
      agent.destroy();
      return { asked, failures, sockets: sockets.size };
    },
  };
}

test("SVIDs and the CA rotate under steady load without one dropped connection", async (t) => {
  // An SVID is renewed at half its life; a CA takes over from the one before at five sixths of that one's.
  const dir = folder(t, {
    ...SMALL_MESH,
    "everyhop.yaml": `${SMALL_MESH["everyhop.yaml"]}ca: {x509SvidTtl: 6s, caTtl: 36s}\n`,
  });
  const mesh = await up(t, dir);
  const startedAt = Date.now();
  const load = steadyLoad(mesh, 4);
  const serials = new Set<string>();
  while (Date.now() < startedAt + 36_000) {
    const { identities } = JSON.parse((await everyhop(["status", "--dir", dir, "--json"])).stdout);
    for (const { service, serial } of identities as { service: string | null; serial: string }[]) {
      if (service === "echo") {
        serials.add(serial);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  const { asked, failures, sockets } = await load.stop();
  t.diagnostic(`${asked} requests on ${sockets} connections while echo had ${serials.size} SVIDs`);
  assert.deepEqual(failures, []);
  assert.equal(sockets, 4, "connections were dropped");
  assert(serials.size >= 4, `${serials.size} SVIDs seen`);
});

test("a signing key is replaced, tainted and revoked under steady load without one failed request", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const mesh = await up(t, dir);
  const authority = async (...args: string[]) => {
    const { code, stdout, stderr } = await everyhop(["authority", ...args, "--dir", dir, "--json"]);
    assert.equal(code, 0, stdout + stderr);
    return JSON.parse(stdout);
  };
  const serials = async () => {
    const { identities } = JSON.parse((await everyhop(["status", "--dir", dir, "--json"])).stdout);
    return new Map<string, string>(
      identities.map(({ spiffeId, serial }: { spiffeId: string; serial: string }) => [spiffeId, serial]),
    );
  };
  const load = steadyLoad(mesh, 4);
  const old = (await authority("show")).active.authorityId;
  const { authorityId: next } = await authority("prepare");
  const sds = makeClient(
    SecretDiscoveryService,
    mesh.agentSocket.replace("unix://", "unix:"),
    credentials.createInsecure(),
  );
  cleanUp(t, () => sds.close());
  /** How many roots the agent hands out. */
  const roots = async (): Promise<number> => {
    const { resources } = await sds.fetchSecrets({ resourceNames: ["ROOTCA"] });
    const pem = Buffer.from(resources[0]?.value ?? []).toString("latin1");
    return pem.match(/BEGIN CERTIFICATE/g)?.length ?? 0;
  };
  await until("the agent has the new key", async () => (await roots()) === 2);
  await authority("activate", "--authority-id", next);
  const before = await serials();
  await authority("taint", "--authority-id", old);
  await until("every identity has a new certificate", async () => {
    const after = await serials();
    return [...before].every(([id, serial]) => after.get(id) !== serial);
  });
  const seen = load.asked();
  await until("requests go on", () => load.asked() > seen + 100);
  await authority("revoke", "--authority-id", old);
  await until("the agent has forgotten the old key", async () => (await roots()) === 1);
  const revoked = load.asked();
  await until("requests go on", () => load.asked() > revoked + 100);
  const { asked, failures } = await load.stop();
  t.diagnostic(`${asked} requests`);
  assert.deepEqual(failures, []);
  const agents = JSON.parse((await everyhop(["agent", "list", "--dir", dir, "--json"])).stdout).agents;
  assert.equal(agents.length, 1);
});

test("server and agent may be killed: what runs keeps running, and they come back", async (t) => {
  const dir = folder(t, SMALL_MESH);
  const mesh = await up(t, dir);
  for (const name of ["server", "agent"]) {
    const [pid] = processesNaming(join(mesh.stateDir, `${name}.yaml`));
    assert(pid !== undefined, name);
    process.kill(pid, "SIGKILL");
    assert.equal(await post(mesh, "/allowed"), 200);
    await until(
      `${name} is back and all is in sync`,
      async () => {
        const { code, stdout } = await everyhop(["status", "--dir", dir, "--json"]);
        return (
          code === 0 &&
          JSON.parse(stdout).proxies.every(({ state }: { state: string }) => state === "synced") &&
          processesNaming(join(mesh.stateDir, `${name}.yaml`)).some((now) => now !== pid)
        );
      },
      60_000,
    );
    assert.equal(await post(mesh, "/allowed"), 200);
  }
});
