/** Several servers, each with an agent of its own: their workloads believe each other, whoever signed for them. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect, createServer } from "node:tls";
import { makeSpiffeId, parseTrustDomain, type SpiffeId, type TrustDomain } from "../src/core/spiffe/id.ts";
import { verifyJwtSvid } from "../src/core/spiffe/jwt-svid.ts";
import type { X509Svid } from "../src/core/spiffe/svid.ts";
import { bundlesOf, verifyX509Svid } from "../src/core/spiffe/x509-svid.ts";
import { parseCertificate } from "../src/core/x509/certificate.ts";
import { localSigner } from "../src/identity/authority/fixture.ts";
import { systemClock } from "../src/io/clock.ts";
import { silentLog } from "../src/io/log.ts";
import { contextOptions, peerChain } from "../src/io/tls.ts";
import { runAgent } from "../src/run/agent.ts";
import { loadAgentConfig } from "../src/run/agent-config.ts";
import { type RunningServer, startServer } from "../src/run/server.ts";
import { readServerConfig } from "../src/run/server-config.ts";
import { watchX509 } from "../src/workload/workload-api.ts";
import type { X509Source } from "../src/workload/x509-source.ts";

const trustDomain = parseTrustDomain("example.com");
const UID = `unix:uid:${process.getuid?.()}`;

async function until(what: string, condition: () => boolean): Promise<void> {
  const giveUpAt = Date.now() + 60_000;
  while (!condition()) {
    assert.ok(Date.now() < giveUpAt, `in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

class Nest {
  readonly #t: TestContext;
  readonly #dir = mkdtempSync(join(tmpdir(), "everyhop-nest-"));
  readonly #ends: (() => unknown)[] = [];

  constructor(t: TestContext) {
    this.#t = t;
    this.#t.after(async () => {
      for (const end of this.#ends.reverse()) {
        await end();
      }
      rmSync(this.#dir, { recursive: true, force: true });
    });
  }

  async server(name: string, more = "", domain: string = trustDomain): Promise<RunningServer> {
    const file = join(this.#dir, `${name}.yaml`);
    const free = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n";
    writeFileSync(file, `trustDomain: ${domain}\ndataDir: ${name}\n${free}${more}`);
    const server = await startServer(readServerConfig(file), {
      log: silentLog,
      openSigner: (setup) => localSigner(setup, { clock: systemClock }),
    });
    this.#ends.push(() => server.close());
    return server;
  }

  /** An agent of `server`, and an entry for `path` that this very process matches. Returns the agent's Workload API. */
  async agent(
    name: string,
    server: RunningServer,
    path: string,
    more: { downstream?: boolean; federatesWith?: readonly TrustDomain[] } = {},
  ): Promise<string> {
    const { value } = await server.identity.nodes.createJoinToken({});
    const file = join(this.#dir, `${name}.yaml`);
    const sockets = ["socket", "brokerSocket", "adminSocket"].map((key) => `${key}: ${name}-${key}\n`).join("");
    const { listen, trustBundle } = server.ready;
    const trust = `server: ${listen}\ntrustBundle: ${trustBundle}\njoinToken: ${value}\n`;
    writeFileSync(file, `trustDomain: ${server.ready.trustDomain}\ndataDir: ${name}-data\n${trust}${sockets}`);
    const agent = await runAgent(loadAgentConfig(file), silentLog);
    this.#ends.push(() => agent.close());
    const spiffeId = makeSpiffeId(server.registry.trustDomain, path);
    const entry = { spiffeId, parentId: agent.ready.spiffeId as SpiffeId, selectors: [UID], ...more };
    await server.registry.createEntry(entry);
    return agent.ready.socket;
  }

  workload(socket: string): X509Source {
    const source = watchX509({ socket, clock: systemClock, log: silentLog });
    this.#ends.push(() => source.close());
    return source;
  }
}

/** What two workloads prove to each other over mutual TLS, each by its own bundle. */
function handshake(client: X509Source, server: X509Source): Promise<[string, string]> {
  const proven = (source: X509Source, chain: readonly Uint8Array[]): string => {
    const verified = verifyX509Svid(chain, bundlesOf(source.bundles.value), Date.now());
    return verified.ok ? verified.id : verified.message;
  };
  const anyone = { requestCert: true, rejectUnauthorized: false };
  return new Promise((resolve, reject) => {
    const listener = createServer({ ...contextOptions(server.svid.value as X509Svid), ...anyone }, (accepted) => {
      const clientId = proven(server, peerChain(accepted));
      accepted.on("error", () => {});
      accepted.end(clientId);
      listener.close();
    });
    listener.listen(0, "127.0.0.1", () => {
      const { port } = listener.address() as { port: number };
      const own = contextOptions(client.svid.value as X509Svid);
      const socket = connect({ port, host: "127.0.0.1", ...own, rejectUnauthorized: false });
      let serverId = "";
      let text = "";
      socket.on("secureConnect", () => {
        serverId = proven(client, peerChain(socket));
      });
      socket.on("data", (chunk: Buffer) => {
        text += chunk;
      });
      socket.on("end", () => resolve([text, serverId]));
      socket.on("error", reject);
    });
  });
}

test("workloads of two servers below one authenticate each other, also after the root's key was replaced", async (t) => {
  const nest = new Nest(t);
  const top = await nest.server("top");
  const socket = await nest.agent("top-agent", top, "/downstream", { downstream: true });
  const upstream = `upstreamAuthority: {kind: spire, server: '${top.ready.listen}', workloadApiSocket: '${socket}'}\n`;
  const left = await nest.server("left", upstream);
  const right = await nest.server("right", upstream);
  const ders = (server: RunningServer) => server.identity.authorities.value.map((der) => Buffer.from(der));
  assert.deepEqual([ders(left), ders(right)], [ders(top), ders(top)], "one root for all");

  const [a, b] = [nest.workload(await nest.agent("l", left, "/a")), nest.workload(await nest.agent("r", right, "/b"))];
  await until("both have their SVIDs", () => a.svid.value !== null && b.svid.value !== null);
  const both = ["spiffe://example.com/a", "spiffe://example.com/b"];
  assert.deepEqual(await handshake(a, b), both);
  assert.equal(a.svid.value?.chain.length, 2, "the intermediate goes with it");

  // JWT keys are known above, and reach the sibling.
  const { token } = await left.authority.issueJwtSvid({
    spiffeId: makeSpiffeId(trustDomain, "/a"),
    audiences: ["b"],
    entryId: "e",
  });
  const believed = verifyJwtSvid(token, () => right.identity.bundles.own.value, "b", Date.now());
  assert.ok(believed.ok, JSON.stringify(believed));

  // The root's key is replaced and tainted: what is below follows by itself.
  const { x509 } = top.authority;
  const old = x509.active().id;
  await x509.activate((await x509.prepare()).id);
  const next = x509.active().id;
  await x509.taint(old);
  const above = (source: X509Source) => parseCertificate(source.svid.value?.chain.at(-1) as Uint8Array).authorityKeyId;
  await until("every workload hangs below the new root", () => above(a) === next && above(b) === next);
  assert.deepEqual(
    [left, right].map(({ authority }) => authority.x509.active().upstreamId),
    [next, next],
  );
  await until("everybody believes the new root", () =>
    [a, b].every((source) => source.bundles.value.get(trustDomain)?.length === 2),
  );
  assert.deepEqual(await handshake(b, a), both.toReversed());
  await x509.revoke(old);
  await until("nobody believes the old one", () =>
    [a, b].every((source) => source.bundles.value.get(trustDomain)?.length === 1),
  );
  assert.deepEqual(await handshake(a, b), both);
});

test("workloads of two trust domains authenticate each other by federated bundles, also after a key was replaced", async (t) => {
  const nest = new Nest(t);
  const endpoint = "federation: {bundleEndpoint: {listen: '127.0.0.1:0'}}\n";
  const [ours, theirs] = [
    await nest.server("ours", endpoint, "ours.test"),
    await nest.server("theirs", endpoint, "theirs.test"),
  ];
  const follow = async (one: RunningServer, other: RunningServer): Promise<void> => {
    const { trustDomain: domain } = other.registry;
    const bundle = other.identity.bundles.own.value;
    const endpointSpiffeId = makeSpiffeId(domain, "/spire/server");
    const url = `https://${other.ready.bundleEndpoint}/`;
    const relationship = { trustDomain: domain, url, profile: { kind: "https_spiffe", endpointSpiffeId } } as const;
    await one.identity.federation.create(
      relationship,
      async () => void (await one.identity.bundles.set(domain, () => bundle)),
    );
  };
  await follow(ours, theirs);
  await follow(theirs, ours);
  const a = nest.workload(await nest.agent("o", ours, "/a", { federatesWith: [parseTrustDomain("theirs.test")] }));
  const b = nest.workload(await nest.agent("t", theirs, "/b", { federatesWith: [parseTrustDomain("ours.test")] }));
  const ready = (source: X509Source) => source.svid.value !== null && source.bundles.value.size === 2;
  await until("both have their SVIDs and bundles", () => ready(a) && ready(b));
  const both = ["spiffe://ours.test/a", "spiffe://theirs.test/b"];
  assert.deepEqual(await handshake(a, b), both);

  const { x509 } = theirs.authority;
  const old = x509.active().id;
  await x509.activate((await x509.prepare()).id);
  await ours.identity.federation.refresh(parseTrustDomain("theirs.test"));
  const bundleAt = (source: X509Source) => source.bundles.value.get(parseTrustDomain("theirs.test"))?.length;
  await until("our workload has their new key", () => bundleAt(a) === 2);
  const before = b.svid.value?.serial;
  await x509.taint(old);
  await until("their workload has a new SVID", () => b.svid.value?.serial !== before);
  await until(
    "their endpoint shows a new SVID",
    () => parseCertificate(theirs.identity.svid.value.chain[0] as Uint8Array).authorityKeyId !== old,
  );
  await x509.revoke(old);
  await ours.identity.federation.refresh(parseTrustDomain("theirs.test"));
  await until("our workload has forgotten their old key", () => bundleAt(a) === 1);
  assert.deepEqual(await handshake(a, b), both);
});
