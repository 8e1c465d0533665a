/** What SPIRE's agent and command line do with our server, emulated from their contract: a real server, real TLS, a fake clock. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type ServiceError, status } from "@grpc/grpc-js";
import { FakeClock } from "../../src/core/base/clock.ts";
import { testCa } from "../../src/core/x509/fixture.ts";
import { HealthCheckResponse_ServingStatus as Serving } from "../../src/gen/grpc/health/health_pb.js";
import { PermissionDeniedDetails_Reason as Reason } from "../../src/gen/spire/api/types/status_pb.js";
import { testServer } from "../../src/identity/server/fixture.ts";
import { reasonOf, SpireAgent } from "./agent.ts";
import { SpireServerCli } from "./cli.ts";

const HOUR = 3_600_000;
const NODE = "spiffe://example.com/node/a";
const joinToken = (token: string) => ({ type: "join_token", payload: Buffer.from(token) });

async function begin(t: TestContext, options = {}) {
  const server = await testServer(t, options);
  const cli = new SpireServerCli(server.adminSocket);
  const agentOf = () =>
    new SpireAgent({
      server: server.address,
      trustDomain: "example.com",
      roots: server.identity.authorities.value,
      now: () => server.clock.now(),
    });
  const join = async () => {
    const agent = agentOf();
    await agent.attest(joinToken(await cli.tokenGenerate(600, NODE)));
    return agent;
  };
  return { server, cli, agentOf, join };
}

/** Lets the clock run until `work` is done: who asks for more than a second's allowance waits for the next. */
async function passing<T>(clock: FakeClock, work: Promise<T>): Promise<T> {
  let done = false;
  const settled = work.finally(() => {
    done = true;
  });
  while (!done) {
    clock.advance(1);
    await new Promise(setImmediate);
  }
  return settled;
}

/** The error of a promise that must fail. */
async function failure(of: Promise<unknown>): Promise<ServiceError> {
  return of.then(
    () => assert.fail("it succeeded"),
    (error: ServiceError) => error,
  );
}

test("an agent joins, is given what is registered under it, and is signed for", async (t) => {
  const { cli, join } = await begin(t);
  const agent = await join();
  assert.equal(agent.reattestable, false);
  const [web] = await cli.entryCreate({
    spiffeID: "spiffe://example.com/web",
    parentID: NODE,
    selector: ["unix:uid:1000"],
    dns: ["web.example"],
    hint: "main",
  });
  await cli.entryCreate({
    spiffeID: "spiffe://example.com/below",
    parentID: "spiffe://example.com/web",
    selector: ["a:b"],
  });
  await cli.entryCreate({
    spiffeID: "spiffe://example.com/other",
    parentID: "spiffe://example.com/node/b",
    selector: ["a:b"],
  });
  await agent.tick();
  const paths = [...agent.entries.values()].map(({ spiffeId }) => spiffeId?.path).sort();
  assert.deepEqual(paths, ["/below", "/node/a", "/web"], "its aliases, their children, and theirs");
  const held = agent.svids.get(web?.entry?.id ?? "");
  assert.match(held?.chain[0]?.subjectAltName ?? "", /DNS:web\.example/);
  assert.equal(held?.entry.hint, "main");
  const signed = agent.signed;
  await agent.tick();
  assert.equal(agent.signed, signed, "what it has is not signed again");
  const token = await agent.jwt(web?.entry?.id ?? "", ["db"]);
  const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
  assert.deepEqual([claims.sub, claims.aud], ["spiffe://example.com/web", ["db"]]);
});

test("what changes on the server is what the agent has after its next tick", async (t) => {
  const { server, cli, join } = await begin(t);
  const agent = await join();
  const flags = { spiffeID: "spiffe://example.com/web", parentID: NODE, selector: ["unix:uid:1000"] };
  const [made] = await cli.entryCreate(flags);
  const entryID = made?.entry?.id ?? "";
  await agent.tick();
  const first = agent.svids.get(entryID)?.chain[0]?.serialNumber;
  const updated = await cli.entryUpdate({ ...flags, entryID, x509SVIDTTL: 600, dns: ["web.example"] });
  assert.equal(updated?.entry?.revisionNumber, 1n);
  await agent.tick();
  const second = agent.svids.get(entryID);
  assert.notEqual(second?.chain[0]?.serialNumber, first);
  assert.equal(second?.notAfterMs, Math.floor(server.clock.now() / 1_000) * 1_000 + 600_000);
  await cli.entryDelete(entryID);
  await agent.tick();
  assert.equal(agent.svids.has(entryID), false);
});

test("more entries than a message holds come by revision, and only what is new is asked for again", async (t) => {
  const { server, cli, join } = await begin(t);
  const agent = await join();
  const many = Array.from({ length: 620 }, (_, index) => ({
    spiffeID: `spiffe://example.com/w${index}`,
    parentID: NODE,
    selector: [`unix:uid:${index}`],
  }));
  await cli.entryCreate(...many);
  await passing(server.clock, agent.tick());
  assert.equal(agent.entries.size, 621);
  assert.equal(agent.svids.size, 621);
  server.clock.advance(10_000);
  await cli.entryCreate({ spiffeID: "spiffe://example.com/one-more", parentID: NODE, selector: ["unix:uid:1"] });
  const signed = agent.signed;
  await agent.tick();
  assert.deepEqual([agent.entries.size, agent.signed - signed], [622, 1]);
});

test("bundles of the trust domains that its entries federate with", async (t) => {
  const { cli, join } = await begin(t);
  const agent = await join();
  const foreign = testCa("foreign");
  assert.equal((await cli.bundleSet("other.org", [foreign.der]))?.status?.code, status.OK);
  assert.equal((await cli.bundleSet("example.com", [foreign.der]))?.status?.code, status.INVALID_ARGUMENT, "its own");
  await cli.entryCreate({
    spiffeID: "spiffe://example.com/web",
    parentID: NODE,
    selector: ["unix:uid:1"],
    federatesWith: ["other.org"],
  });
  await agent.tick();
  assert.deepEqual(
    agent.federated.get("other.org")?.x509Authorities.map(({ asn1 }) => Buffer.from(asn1)),
    [Buffer.from(foreign.der)],
  );
  assert.equal((await cli.bundleList()).length, 1);
  const refused = await cli.bundleDelete("other.org", "restrict");
  assert.equal(refused?.status?.code, status.FAILED_PRECONDITION);
  assert.equal((await cli.bundleDelete("other.org", "dissociate"))?.status?.code, status.OK);
  await agent.tick();
  assert.deepEqual(
    [...agent.entries.values()].flatMap(({ federatesWith }) => federatesWith),
    [],
  );
});

test("an agent that cannot attest again renews; its old certificate is refused once the new one was used", async (t) => {
  // OpenSSL judges certificates by the machine's clock: half a life before now.
  const { server, join } = await begin(t, { clock: new FakeClock(Date.now() - 2 * HOUR), x509SvidTtlMs: 4 * HOUR });
  const agent = await join();
  const before = agent.own;
  server.clock.advance(2 * HOUR);
  await agent.renew();
  assert.notEqual(agent.own.serial, before.serial);
  const after = agent.own;
  agent.own = before;
  await agent.tick();
  agent.own = after;
  await agent.tick();
  agent.own = before;
  const refused = await failure(agent.tick());
  assert.equal(reasonOf(refused), Reason.AGENT_NOT_ACTIVE);
  assert.equal(agent.reactTo(refused), "shut down");
});

test("banned, evicted, and back with a new token alone", async (t) => {
  const { cli, agentOf, join } = await begin(t);
  const agent = await join();
  const { id } = agent;
  await agent.tick();
  const { banned: before, agentVersion } = await cli.agentShow(id);
  assert.deepEqual([before, agentVersion], [false, "1.15.0"]);
  await cli.agentBan(id);
  const banned = await failure(agent.tick());
  assert.equal(reasonOf(banned), Reason.AGENT_BANNED);
  assert.equal(agent.reactTo(banned), "shut down");
  assert.equal((await cli.agentList({ byBanned: true })).length, 1);
  const other = await join();
  const used = other.id.split("/").at(-1) ?? "";
  await cli.agentEvict(other.id);
  const evicted = await failure(other.tick());
  assert.equal(reasonOf(evicted), Reason.AGENT_NOT_ATTESTED);
  assert.equal(other.reactTo(evicted), "shut down", "a join token does not attest again");
  const refused = await failure(agentOf().attest(joinToken(used)));
  assert.deepEqual(
    [refused.code, refused.details],
    [status.INVALID_ARGUMENT, "failed to attest: join token does not exist or has already been used"],
  );
  await (await join()).tick();
  assert.equal(await cli.agentCount(), 2);
});

test("a tainted authority: every SVID under it is signed anew, the agent's own too, and nothing is left when it is revoked", async (t) => {
  const { server, cli, join } = await begin(t);
  const agent = await join();
  await cli.entryCreate({ spiffeID: "spiffe://example.com/web", parentID: NODE, selector: ["unix:uid:1"] });
  await agent.tick();
  const old = (await cli.x509Authority.show()).active?.authorityId ?? "";
  const next = (await cli.x509Authority.prepare()).preparedAuthority?.authorityId ?? "";
  await agent.tick();
  assert.equal(agent.bundle?.x509Authorities.length, 2, "published before it signs");
  await cli.x509Authority.activate(next);
  await cli.x509Authority.taint(old);
  const signed = agent.signed;
  await agent.tick();
  assert.deepEqual(agent.bundle?.x509Authorities.map(({ tainted }) => tainted).sort(), [false, true]);
  assert.equal(agent.signed - signed, agent.entries.size);
  await agent.renew();
  await cli.x509Authority.revoke(old);
  await agent.tick();
  assert.equal(agent.bundle?.x509Authorities.length, 1);
  assert.equal(server.identity.authorities.value.length, 1);
});

test("the command line's own script: created, found by each filter, changed, deleted", async (t) => {
  const { cli } = await begin(t);
  assert.equal(await cli.healthcheck(), Serving.SERVING);
  const entry = (name: string, selector: string[], more = {}) => ({
    spiffeID: `spiffe://example.com/${name}`,
    parentID: NODE,
    selector,
    ...more,
  });
  const made = await cli.entryCreate(
    entry("a", ["t:1"]),
    entry("b", ["t:1", "t:2"], { hint: "external" }),
    entry("c", ["t:3"], { downstream: true }),
    entry("a", ["t:1"]),
    entry("d", []),
    { ...entry("e", ["t:1"]), spiffeID: "spiffe://other.org/e" },
  );
  const codes = made.map(({ status: of }) => of?.code);
  const { OK, ALREADY_EXISTS, INVALID_ARGUMENT } = status;
  assert.deepEqual(codes, [OK, OK, OK, ALREADY_EXISTS, INVALID_ARGUMENT, INVALID_ARGUMENT]);
  assert.equal(made[3]?.entry?.id, made[0]?.entry?.id, "the one that is there");
  const found = async (flags: Parameters<typeof cli.entryShow>[0]) => {
    const entries = await cli.entryShow(flags);
    assert.equal(await cli.entryCount(flags), entries.length);
    return entries
      .map(({ spiffeId }) => spiffeId?.path.slice(1))
      .sort()
      .join("");
  };
  assert.equal(await found({}), "abc");
  assert.equal(await found({ downstream: true }), "c");
  assert.equal(await found({ spiffeID: "spiffe://example.com/b" }), "b");
  assert.equal(await found({ parentID: "spiffe://example.com/none" }), "");
  assert.equal(await found({ selector: ["t:1"] }), "ab");
  assert.equal(await found({ selector: ["t:1"], matchSelectorsOn: "exact" }), "a");
  assert.equal(await found({ selector: ["t:1", "t:3"], matchSelectorsOn: "any" }), "abc");
  assert.equal(await found({ selector: ["t:1", "t:2"], matchSelectorsOn: "subset" }), "ab");
  assert.equal(await found({ hint: "external" }), "b");
  const [one, unknown] = await cli.entryDelete(made[0]?.entry?.id ?? "", "none");
  assert.deepEqual([one?.status?.code, unknown?.status?.code], [OK, status.NOT_FOUND]);
  assert.equal(await found({}), "bc");
});

test("minting by hand", async (t) => {
  const { server, cli } = await begin(t);
  const svid = await cli.x509Mint("spiffe://example.com/by-hand", 600, ["hand.example"]);
  assert.equal(Number(svid?.expiresAt), Math.floor(server.clock.now() / 1_000) + 600);
  const jwt = await cli.jwtMint("spiffe://example.com/by-hand", ["a", "b"], 60);
  assert.equal(Number(jwt?.expiresAt) - Number(jwt?.issuedAt), 60);
  await assert.rejects(cli.jwtMint("spiffe://other.org/by-hand", ["a"]), { code: status.INVALID_ARGUMENT });
});
