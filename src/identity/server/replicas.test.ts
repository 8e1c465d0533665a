/** Two servers on one store, in one process: what one does the other knows. Over real PostgreSQL: test/interop/replicas.test.ts. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { Node } from "../../gen/everyhop/node/node_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { faultyStore } from "../../io/store/faulty.ts";
import { openSqliteStore } from "../../io/store/sqlite.ts";
import { attest, id, type TestServer, testKey, testServer } from "./fixture.ts";

async function twoServers(t: TestContext): Promise<readonly [TestServer, TestServer, FakeClock]> {
  const clock = new FakeClock(Date.now());
  const store = await openSqliteStore(":memory:");
  const one = await testServer(t, { clock, store, serverId: "one" });
  const two = await testServer(t, { clock, store, serverId: "two" });
  t.after(() => store.close());
  return [one, two, clock];
}

const bundleOf = async (server: TestServer) => {
  const { x509Authorities, jwtAuthorities, sequenceNumber } = await server.local(Bundle).getBundle({});
  return {
    x509: x509Authorities.map(({ asn1 }) => parseCertificate(asn1).subjectKeyId).sort(),
    jwt: jwtAuthorities.map(({ keyId }) => keyId).sort(),
    sequence: sequenceNumber,
  };
};

test("each has a CA and a JWT key of its own, and all of them are in the bundle of both, under one number", async (t) => {
  const [one, two] = await twoServers(t);
  const bundle = await bundleOf(one);
  assert.deepEqual(await bundleOf(two), bundle);
  assert.deepEqual(bundle.x509, [one.authority.x509.active().id, two.authority.x509.active().id].sort());
  assert.deepEqual(bundle.jwt, [one.authority.jwt.active().id, two.authority.jwt.active().id].sort());
  const { id: next } = await two.authority.x509.prepare();
  const after = await bundleOf(one);
  assert.ok(after.x509.includes(next), "what one prepares the other publishes");
  assert.ok(after.sequence > bundle.sequence);
});

test("an agent that joined at one is served by the other, with SVIDs of the other's CA", async (t) => {
  const [one, two] = await twoServers(t);
  const agent = await one.agent();
  const entry = await two.entry(id("/web"), agent.id);
  const { entries } = await two.remote(Entry, agent).getAuthorizedEntries({});
  assert.deepEqual(
    entries.map((each) => each.id),
    [entry],
  );
  const issuers = new Set<string | null>();
  for (const server of [one, two]) {
    const params = [{ entryId: entry, csr: testKey().csr }];
    const { results } = await server.remote(SVID, agent).batchNewX509SVID({ params });
    issuers.add(parseCertificate(results[0]?.svid?.certChain[0] as Uint8Array).authorityKeyId);
  }
  assert.deepEqual(issuers, new Set([one.authority.x509.active().id, two.authority.x509.active().id]));
});

test("an entry that is made at one is told at once to an agent of the other; so are a kill and a ban", async (t) => {
  const [one, two] = await twoServers(t);
  const agent = await one.agent();
  const call = one.remote(Node, agent).watch({});
  const ended = new Promise<Error>((resolve) => call.once("error", resolve));
  const next = () => new Promise((resolve) => call.once("data", resolve));
  await next();
  const created = next();
  await two.entry(id("/web"), agent.id);
  await created;
  const killed = next();
  await two.registry.kill(id("/web"));
  await killed;
  assert.deepEqual(one.registry.authorizedEntries(agent.id), []);
  await two.identity.nodes.ban(agent.id);
  assert.match((await ended).message, /banned/);
});

test("of twenty that come with one token to either, one gets in", async (t) => {
  const [one, two] = await twoServers(t);
  const { value } = await one.local(Agent).createJoinToken({ ttl: 60 });
  const joins = Array.from({ length: 20 }, (_, index) => attest((index % 2 ? one : two).remote(Agent, null), value));
  const joined = (await Promise.allSettled(joins)).filter(({ status }) => status === "fulfilled");
  assert.equal(joined.length, 1);
});

test("the CA of a server that is no more goes from the bundle when it expires", async (t) => {
  const [one, two, clock] = await twoServers(t);
  const ended = two.authority.x509.active().id;
  await two.authority.close();
  await one.identity.bundles.prune(clock.now());
  assert.ok((await bundleOf(one)).x509.includes(ended), "it is good for as long as what it signed");
  await one.identity.bundles.prune(clock.now() + 25 * 3_600_000);
  assert.deepEqual((await bundleOf(one)).x509, [one.authority.x509.active().id], "our own stays until we rotate it");
});

test("a server that lost its keys leaves what they signed valid, and one that kept them takes back what it revokes", async (t) => {
  const [one, two] = await twoServers(t);
  const lost = two.authority.x509.active().id;
  await two.authority.close();
  const clock = two.clock;
  const again = await testServer(t, { clock, store: two.store, serverId: "two" });
  const { x509 } = again.authority;
  assert.deepEqual((await bundleOf(one)).x509, [one.authority.x509.active().id, lost, x509.active().id].sort());
  const old = x509.active().id;
  await x509.activate((await x509.prepare()).id);
  await x509.revoke(old);
  assert.equal((await bundleOf(one)).x509.includes(old), false);
  assert.ok((await bundleOf(one)).x509.includes(lost));
});

test("nothing is signed with an authority that could not be published", async (t) => {
  const clock = new FakeClock(Date.now());
  const real = await openSqliteStore(":memory:");
  t.after(() => real.close());
  const faults: { next: "before" | "after" | null } = { next: null };
  const server = await testServer(t, { clock, store: faultyStore(real, faults) });
  const { bundles } = server.identity;
  const before = bundles.own.value.x509Authorities.length;
  const { x509 } = server.authority;
  const active = x509.active().id;
  const announced = { ...bundles.own.value, x509Authorities: [] };
  faults.next = "before";
  await assert.rejects(bundles.announce(announced, false), /away/);
  assert.equal(bundles.own.value.x509Authorities.length, before, "what is published is what was");
  faults.next = "after";
  await assert.rejects(bundles.announce(announced, false), /away/);
  await bundles.prune(clock.now());
  assert.equal(bundles.own.value.x509Authorities.length, before, "and what got there by half is put right");
  assert.equal(x509.active().id, active);
});
