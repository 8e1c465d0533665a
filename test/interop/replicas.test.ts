/** Three servers on one real PostgreSQL, an agent and a workload: any two servers may die, and the database, and nobody notices. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { credentials } from "@grpc/grpc-js";
import { parseCertificate } from "../../src/core/x509/certificate.ts";
import { Admin } from "../../src/gen/everyhop/admin/admin_pb.js";
import { Agent } from "../../src/gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle } from "../../src/gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../src/gen/spire/api/server/entry/v1/entry_pb.js";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { makeClient, type RpcClient } from "../../src/io/rpc/adapter.ts";
import type { ServerReady } from "../../src/run/server.ts";
import { watchX509 } from "../../src/workload/workload-api.ts";
import { skipWithout } from "../peers.ts";
import { startCluster } from "./postgres-cluster.ts";

const MAIN = new URL("../../src/cli/main.ts", import.meta.url).pathname;
const UID = process.getuid?.() ?? 0;

/** A command that says in a line of JSON when it is ready; killed when the test ends. */
class Process<Ready> {
  readonly ready: Promise<Ready>;
  readonly #child: ChildProcess;
  #log = "";

  constructor(t: TestContext, args: readonly string[]) {
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    t.after(() => this.kill());
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    this.ready = new Promise((resolve, reject) => {
      let text = "";
      child.stdout?.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        if (text.includes("\n")) {
          resolve(JSON.parse(text.slice(0, text.indexOf("\n"))) as Ready);
        }
      });
      child.once("close", () => reject(new Error(`${args[0]} ended: ${this.#log}`)));
    });
    this.ready.catch(() => {});
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get log(): string {
    return this.#log;
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    if (this.running) {
      const gone = new Promise((resolve) => this.#child.once("close", resolve));
      this.#child.kill("SIGKILL");
      await gone;
    }
  }
}

/** One of the servers, which comes back under the same addresses. */
class Replica {
  readonly #t: TestContext;
  readonly #dir: string;
  readonly #connection: string;
  #process: Process<ServerReady> | null = null;
  ready: ServerReady | null = null;

  constructor(t: TestContext, dir: string, connection: string) {
    this.#t = t;
    this.#dir = dir;
    this.#connection = connection;
  }

  async start(): Promise<void> {
    const file = `${this.#dir}.yaml`;
    const { listen = "127.0.0.1:0", http = "127.0.0.1:0", xds = "127.0.0.1:0" } = this.ready ?? {};
    const dataStore = { kind: "postgres", connection: this.#connection };
    writeFileSync(
      file,
      JSON.stringify({ trustDomain: "example.com", dataDir: this.#dir, dataStore, listen, http, xds }),
    );
    this.#process = new Process(this.#t, ["server", "--config", file]);
    this.ready = await this.#process.ready;
  }

  async kill(): Promise<void> {
    await this.#process?.kill();
  }

  ask<C>(
    use: (client: <S extends Parameters<typeof makeClient>[0]>(service: S) => RpcClient<S>) => Promise<C>,
  ): Promise<C> {
    const open: { close(): void }[] = [];
    const client = ((service: Parameters<typeof makeClient>[0]) => {
      const made = makeClient(service, `unix:${this.ready?.adminSocket}`, credentials.createInsecure());
      open.push(made);
      return made;
    }) as unknown as Parameters<typeof use>[0];
    return use(client).finally(() => {
      for (const one of open) {
        one.close();
      }
    });
  }

  /** Registers the identity `name` for this process, under the agent. */
  async entry(name: string, agent: string): Promise<void> {
    const spiffeId = { trustDomain: "example.com", path: `/${name}` };
    const parentId = { trustDomain: "example.com", path: agent.slice("spiffe://example.com".length) };
    const selectors = [{ type: "unix", value: `uid:${UID}` }];
    const { results } = await this.ask((client) =>
      client(Entry).batchCreateEntry({ entries: [{ spiffeId, parentId, selectors }] }),
    );
    assert.equal(results[0]?.status?.code, 0, results[0]?.status?.message);
  }
}

test("any two of three servers die, and then the database: no entry is lost, and the agent only tries again", async (t) => {
  if (skipWithout(t, "postgres")) {
    return;
  }
  const dir = mkdtempSync(join(tmpdir(), "everyhop-replicas-"));
  const cluster = await startCluster();
  t.after(async () => {
    await cluster.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  const connection = await cluster.database();
  const replicas = ["a", "b", "c"].map((name) => new Replica(t, join(dir, name), connection));
  const [a, b, c] = replicas as [Replica, Replica, Replica];
  await Promise.all(replicas.map((replica) => replica.start()));

  const { x509Authorities } = await c.ask((client) => client(Bundle).getBundle({}));
  assert.equal(new Set(x509Authorities.map(({ asn1 }) => parseCertificate(asn1).subjectKeyId)).size, 3);
  const { value: joinToken } = await a.ask((client) => client(Agent).createJoinToken({ ttl: 600 }));
  const file = join(dir, "agent.yaml");
  const sockets = { socket: join(dir, "w.sock"), brokerSocket: join(dir, "b.sock") };
  const server = replicas.map(({ ready }) => ready?.listen);
  const trustBundle = c.ready?.trustBundle;
  const config = {
    trustDomain: "example.com",
    server,
    dataDir: join(dir, "agent"),
    trustBundle,
    joinToken,
    ...sockets,
  };
  writeFileSync(file, JSON.stringify(config));
  const agent = new Process<{ spiffeId: string }>(t, ["agent", "--config", file]);
  const { spiffeId: agentId } = await agent.ready;

  const workload = watchX509({
    socket: `unix://${sockets.socket}`,
    log: silentLog,
    clock: systemClock,
    random: Math.random,
  });
  t.after(() => workload.close());
  const has = (name: string) =>
    new Promise<void>((resolve) => {
      const look = (): boolean => workload.svids.value.some(({ id }) => id === `spiffe://example.com/${name}`);
      if (look()) {
        resolve();
        return;
      }
      const end = workload.svids.watch(() => {
        if (look()) {
          end();
          resolve();
        }
      });
    });

  // Made at each of them, whichever the agent is at.
  for (const [index, replica] of replicas.entries()) {
    const asked = performance.now();
    await replica.entry(`w${index}`, agentId);
    await has(`w${index}`);
    t.diagnostic(`an entry made at server ${index + 1} was an SVID after ${Math.round(performance.now() - asked)} ms`);
  }

  await Promise.all([a.kill(), b.kill()]);
  await c.entry("alone-at-c", agentId);
  await has("alone-at-c");
  await Promise.all([a.start(), b.start()]);
  await Promise.all([b.kill(), c.kill()]);
  await a.entry("alone-at-a", agentId);
  await has("alone-at-a");
  await b.start();
  await Promise.all([a.kill(), c.kill()]);
  await b.entry("alone-at-b", agentId);
  await has("alone-at-b");
  await c.start();

  await cluster.crash();
  await assert.rejects(b.entry("refused", agentId), /is away/);
  assert.equal(
    (await c.ask((client) => client(Entry).listEntries({}))).entries.length,
    6,
    "what is known is served on",
  );
  await cluster.start();
  for (let made = false; !made; ) {
    made = await c.entry("after", agentId).then(
      () => true,
      (error: Error) => {
        assert.match(error.message, /is away|catching up/);
        return false;
      },
    );
  }
  await has("after");

  const { entries } = await b.ask((client) => client(Entry).listEntries({}));
  const paths = entries.map(({ spiffeId }) => spiffeId?.path).sort();
  assert.deepEqual(paths, ["/after", "/alone-at-a", "/alone-at-b", "/alone-at-c", "/w0", "/w1", "/w2"]);
  const audit = toJson(StructSchema, await b.ask((client) => client(Admin).auditCertificates({})));
  const { duplicates, unjournaled, mismatches } = audit as Record<string, unknown>;
  assert.deepEqual([duplicates, unjournaled, mismatches], [0, 0, []]);
  assert.equal(agent.running, true);
  assert.doesNotMatch(agent.log, /the agent ends|attesting again/);
});
