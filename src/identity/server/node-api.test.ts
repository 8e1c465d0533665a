import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { bundlesOf, verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { PermissionDeniedDetails_Reason as Reason } from "../../gen/spire/api/types/status_pb.js";
import { attest, failsWith, id, refusedBecause, svidOf, testKey, testServer, trustDomain, wire } from "./fixture.ts";

test("a node joins with a token, once, and its SVID verifies", async (t) => {
  const server = await testServer(t);
  const { value } = await server.local(Agent).createJoinToken({ ttl: 60 });
  const svid = await attest(server.remote(Agent, null), value);
  assert.equal(svid.id, id(`/spire/agent/join_token/${value}`));
  const bundles = bundlesOf(new Map([[trustDomain, server.identity.authorities.value]]));
  assert.equal(verifyX509Svid(svid.chain, bundles, server.clock.now()).ok, true);
  await assert.rejects(
    attest(server.remote(Agent, null), value),
    failsWith(status.INVALID_ARGUMENT, /join token does not exist or has already been used/),
  );
});

test("SPIRE 1.14.6, the join token's race: of twenty who race with one token, one joins", async (t) => {
  const server = await testServer(t);
  const { value } = await server.local(Agent).createJoinToken({ ttl: 60 });
  const clients = Array.from({ length: 20 }, () => server.remote(Agent, null));
  const results = await Promise.allSettled(clients.map((client) => attest(client, value)));
  assert.equal(results.filter((result) => result.status === "fulfilled").length, 1);
  const journal = await server.store.issuance.list({ limit: 100 });
  assert.equal(journal.records.filter(({ entryId }) => entryId.startsWith("agent:")).length, 1, "one was signed");
});

test("an expired token, a malformed one and an unknown attestation are refused", async (t) => {
  const server = await testServer(t);
  const client = server.remote(Agent, null);
  const { value } = await server.local(Agent).createJoinToken({ ttl: 60 });
  server.clock.advance(61_000);
  await assert.rejects(attest(client, value), failsWith(status.INVALID_ARGUMENT, /expired/));
  await assert.rejects(attest(client, "../x"), failsWith(status.INVALID_ARGUMENT, /malformed/));
  await assert.rejects(attest(client, "unknown"), failsWith(status.INVALID_ARGUMENT, /does not exist/));
});

test("a bad request does not cost the token", async (t) => {
  const server = await testServer(t);
  const { value } = await server.local(Agent).createJoinToken({ ttl: 60 });
  const client = server.remote(Agent, null);
  const broken = { ...testKey(), csr: testKey().csr.slice(0, -1) };
  await assert.rejects(attest(client, value, broken), failsWith(status.INVALID_ARGUMENT));
  await attest(client, value);
});

test("an agent gets SVIDs for its entries, and for no others", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const mine = await server.entry(id("/web"), agent.id);
  const below = await server.entry(id("/web/child"), id("/web"));
  const others = await server.entry(id("/db"), id("/spire/agent/join_token/other"));
  const { entries } = await server.remote(Entry, agent).getAuthorizedEntries({});
  assert.deepEqual(entries.map((entry) => entry.id).sort(), [mine, below].sort());
  const key = testKey();
  const params = [mine, others, "nope", ""].map((entryId) => ({ entryId, csr: key.csr }));
  const { results } = await server.remote(SVID, agent).batchNewX509SVID({ params });
  assert.deepEqual(
    results.map((result) => result.status?.code),
    [status.OK, status.NOT_FOUND, status.NOT_FOUND, status.INVALID_ARGUMENT],
  );
  const svid = svidOf(results[0]?.svid?.certChain ?? [], key);
  assert.equal(svid.id, id("/web"));
  assert.equal(Number(results[0]?.svid?.expiresAt) * 1_000, svid.notAfter);
  const record = await server.store.issuance.get(svid.serial);
  assert.equal(record?.entryId, mine);
  assert.deepEqual(record?.issued, Buffer.from(svid.chain[0] ?? []));
});

test("a JWT-SVID has its audience, and times that are set", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const entryId = await server.entry(id("/web"), agent.id);
  const { svid } = await server.remote(SVID, agent).newJWTSVID({ entryId, audience: ["db"] });
  const claims = JSON.parse(Buffer.from(svid?.token.split(".")[1] ?? "", "base64url").toString());
  assert.equal(claims.sub, id("/web"));
  assert.deepEqual(claims.aud, ["db"]);
  assert.ok(Number(svid?.issuedAt) > 0 && Number(svid?.expiresAt) === claims.exp);
  const none = server.remote(SVID, agent).newJWTSVID({ entryId, audience: [] });
  await assert.rejects(none, failsWith(status.INVALID_ARGUMENT));
});

test("a renewed SVID takes over when it is first used; then the old one is refused", async (t) => {
  const server = await testServer(t);
  const old = await server.agent();
  const before = server.remote(Agent, old);
  const key = testKey();
  const { svid } = await before.renewAgent({ params: { csr: key.csr } });
  await before.postStatus({});
  const renewed = svidOf(svid?.certChain ?? [], key);
  await server.remote(Agent, renewed).postStatus({});
  await assert.rejects(before.postStatus({}), refusedBecause(Reason.AGENT_NOT_ACTIVE));
});

test("an agent is told why it is refused: banned, evicted, expired", async (t) => {
  // Short enough that the certificates of the clock's future, backdated by 10 s, are good by the machine's clock too.
  const server = await testServer(t, { x509SvidTtlMs: 10_000 });
  const agents = server.local(Agent);
  const banned = await server.agent();
  await agents.banAgent({ id: wire(banned.id) });
  await assert.rejects(server.remote(Agent, banned).postStatus({}), refusedBecause(Reason.AGENT_BANNED));
  const evicted = await server.agent();
  await agents.deleteAgent({ id: wire(evicted.id) });
  await assert.rejects(server.remote(Agent, evicted).postStatus({}), refusedBecause(Reason.AGENT_NOT_ATTESTED));
  const expired = await server.agent();
  const open = server.remote(Agent, expired);
  await open.postStatus({});
  server.clock.advance(10_000);
  await assert.rejects(open.postStatus({}), refusedBecause(Reason.AGENT_EXPIRED), "on a living connection");
  await assert.rejects(server.remote(Agent, expired).postStatus({}), refusedBecause(Reason.AGENT_EXPIRED));
});

test("a workload's SVID is no agent's, and no identity is no agent", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const entryId = await server.entry(id("/web"), agent.id);
  const key = testKey();
  const { results } = await server.remote(SVID, agent).batchNewX509SVID({ params: [{ entryId, csr: key.csr }] });
  const workload = svidOf(results[0]?.svid?.certChain ?? [], key);
  const asWorkload = server.remote(SVID, workload).batchNewX509SVID({ params: [{ entryId, csr: key.csr }] });
  await assert.rejects(asWorkload, refusedBecause(Reason.AGENT_NOT_ATTESTED));
  const asNobody = server.remote(SVID, null).batchNewX509SVID({ params: [{ entryId, csr: key.csr }] });
  await assert.rejects(asNobody, failsWith(status.PERMISSION_DENIED));
  await assert.rejects(server.remote(Entry, workload).listEntries({}), failsWith(status.PERMISSION_DENIED));
});

test("an identity that is cut off gets nothing, at once, until it is restored", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const entryId = await server.entry(id("/web"), agent.id);
  const svids = server.remote(SVID, agent);
  const ask = async () => {
    const { results } = await svids.batchNewX509SVID({ params: [{ entryId, csr: testKey().csr }] });
    return results[0]?.status?.code;
  };
  assert.equal(await ask(), status.OK);
  const kill = await server.registry.kill(id("/web"));
  assert.equal(await ask(), status.NOT_FOUND);
  assert.deepEqual((await server.remote(Entry, agent).getAuthorizedEntries({})).entries, []);
  assert.deepEqual(await server.registry.kill(id("/web")), kill, "the order in force is kept");
  assert.deepEqual(await server.registry.restore(id("/web")), kill);
  assert.equal(await ask(), status.OK);
});
