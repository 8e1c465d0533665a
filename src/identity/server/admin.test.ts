import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { statSync } from "node:fs";
import { test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../gen/grpc/health/health_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { SelectorMatch_MatchBehavior as Match } from "../../gen/spire/api/types/selector_pb.js";
import type { CertificateAudit } from "./audit.ts";
import { attest, id, svidOf, testKey, testServer, wire, wireSelector } from "./fixture.ts";

test("agents: listed, counted, filtered, masked, paged", async (t) => {
  const server = await testServer(t);
  const agents = server.local(Agent);
  const all = [await server.agent(), await server.agent(), await server.agent()].map((svid) => svid.id).sort();
  const banned = all[0]!;
  await agents.banAgent({ id: wire(banned) });
  const count = async (filter: {
    byBanned?: boolean;
    byCanReattest?: boolean;
    byAttestationType?: string;
    bySelectorMatch?: { selectors: { type: string; value: string }[]; match: Match };
    byExpiresBefore?: string;
  }) => {
    const { count: counted } = await agents.countAgents({ filter });
    assert.equal((await agents.listAgents({ filter })).agents.length, counted);
    return counted;
  };
  assert.equal(await count({}), 3);
  assert.equal(await count({ byBanned: true }), 1);
  assert.equal(await count({ byBanned: false }), 2);
  assert.equal(await count({ byCanReattest: true }), 0);
  assert.equal(await count({ byAttestationType: "join_token" }), 3);
  assert.equal(await count({ byAttestationType: "x509pop" }), 0);
  const selectors = [wireSelector(`spiffe_id:${banned}`)];
  assert.equal(await count({ bySelectorMatch: { selectors, match: Match.MATCH_EXACT } }), 1);
  assert.equal(await count({ byExpiresBefore: "2000-01-02 15:04:05 -0700 -07" }), 0);
  assert.equal(await count({ byExpiresBefore: "2200-01-02 15:04:05 +0000 +00" }), 3);
  await assert.rejects(count({ byExpiresBefore: "tomorrow" }), { code: status.INVALID_ARGUMENT });
  const page = await agents.listAgents({ pageSize: 2 });
  const rest = await agents.listAgents({ pageSize: 2, pageToken: page.nextPageToken });
  const paths = [...page.agents, ...rest.agents].map((agent) => `spiffe://example.com${agent.id?.path}`);
  assert.deepEqual(paths, all);
  assert.equal(rest.nextPageToken, "");
});

test("an agent as SPIRE's users see it, and with each mask bit its own field alone", async (t) => {
  const server = await testServer(t);
  const svid = await server.agent();
  const agents = server.local(Agent);
  const whole = await agents.getAgent({ id: wire(svid.id) });
  assert.equal(whole.x509svidSerialNumber, BigInt(`0x${svid.serial}`).toString(), "decimal");
  assert.equal(Number(whole.x509svidExpiresAt) * 1_000, svid.notAfter);
  const nothing = await agents.getAgent({ id: wire(svid.id), outputMask: {} });
  assert.deepEqual([nothing.id?.path, nothing.attestationType, nothing.selectors], [whole.id?.path, "", []]);
  for (const field of ["attestationType", "x509svidSerialNumber", "x509svidExpiresAt", "selectors"] as const) {
    const masked = await agents.getAgent({ id: wire(svid.id), outputMask: { [field]: true } });
    assert.deepEqual(masked, { ...nothing, [field]: whole[field] });
  }
  await agents.banAgent({ id: wire(svid.id) });
  assert.equal((await agents.getAgent({ id: wire(svid.id), outputMask: { banned: true } })).banned, true);
  assert.equal((await agents.getAgent({ id: wire(svid.id), outputMask: { canReattest: true } })).banned, false);
});

test("a banned agent stays out until it is evicted; what is no agent cannot be banned", async (t) => {
  const server = await testServer(t);
  const agents = server.local(Agent);
  const { value } = await agents.createJoinToken({ ttl: 60, token: "abc" });
  const svid = await attest(server.remote(Agent, null), value);
  await agents.banAgent({ id: wire(svid.id) });
  await agents.createJoinToken({ ttl: 60, token: "abc" });
  await assert.rejects(attest(server.remote(Agent, null), "abc"), { code: status.PERMISSION_DENIED });
  await agents.deleteAgent({ id: wire(svid.id) });
  await agents.createJoinToken({ ttl: 60, token: "abc" });
  await attest(server.remote(Agent, null), "abc");
  await assert.rejects(agents.banAgent({ id: wire(id("/web")) }), { code: status.INVALID_ARGUMENT });
  await assert.rejects(agents.banAgent({ id: wire(id("/spire/agent/x/y")) }), { code: status.NOT_FOUND });
  await assert.rejects(agents.deleteAgent({}), { code: status.INVALID_ARGUMENT });
});

test("a join token may name an identity that the agent stands for", async (t) => {
  const server = await testServer(t);
  const agents = server.local(Agent);
  const { value } = await agents.createJoinToken({ ttl: 60, agentId: wire(id("/node/web")) });
  const svid = await attest(server.remote(Agent, null), value);
  const below = await server.entry(id("/web"), id("/node/web"));
  const alias = server.registry.entries().find((entry) => entry.spiffeId === id("/node/web"));
  assert.deepEqual(alias?.selectors, [`spiffe_id:${svid.id}`]);
  assert.ok(server.registry.authorizedEntries(svid.id).some((entry) => entry.id === below));
  await assert.rejects(agents.createJoinToken({ ttl: 0 }), { code: status.INVALID_ARGUMENT });
  await assert.rejects(agents.createJoinToken({ ttl: 60, token: "a b" }), { code: status.INVALID_ARGUMENT });
  const reserved = agents.createJoinToken({ ttl: 60, token: "kept", agentId: wire(id("/spire/x")) });
  await assert.rejects(reserved, { code: status.INVALID_ARGUMENT });
  await assert.rejects(
    attest(server.remote(Agent, null), "kept"),
    { code: status.INVALID_ARGUMENT },
    "nothing half-made",
  );
});

test("minting: one SPIFFE ID of ours, and its DNS names", async (t) => {
  const server = await testServer(t);
  const svids = server.local(SVID);
  const key = testKey({ uris: [id("/web")], dnsNames: ["a.example"] });
  const { svid } = await svids.mintX509SVID({ csr: key.csr, ttl: 60 });
  const minted = svidOf(svid?.certChain ?? [], key);
  assert.equal(minted.notAfter, Math.floor(server.clock.now() / 1_000) * 1_000 + 60_000);
  const refused = { code: status.INVALID_ARGUMENT };
  const asked = [
    [],
    [id("/a"), id("/b")],
    ["spiffe://other.org/x"],
    [id("/spire/server")],
    ["spiffe://example.com"],
    ["https://a"],
  ];
  for (const uris of asked) {
    await assert.rejects(svids.mintX509SVID({ csr: testKey({ uris }).csr }), refused, uris.join());
  }
  await assert.rejects(svids.mintX509SVID({ csr: testKey({ uris: [id("/a")], dnsNames: ["-"] }).csr }), refused);
  await assert.rejects(svids.mintX509SVID({ csr: key.csr, ttl: -1 }), refused);
  const jwt = await svids.mintJWTSVID({ id: wire(id("/web")), audience: ["a"], ttl: 30 });
  assert.equal(Number(jwt.svid?.expiresAt) - Number(jwt.svid?.issuedAt), 30);
  await assert.rejects(svids.mintJWTSVID({ id: wire(id("/web")) }), refused);
  await server.registry.kill(id("/web"));
  await assert.rejects(svids.mintX509SVID({ csr: key.csr }), { code: status.PERMISSION_DENIED });
  await assert.rejects(svids.mintJWTSVID({ id: wire(id("/web")), audience: ["a"] }), {
    code: status.PERMISSION_DENIED,
  });
});

test("an audit accounts for every certificate, and finds one that was not made here", async (t) => {
  const server = await testServer(t);
  const audit = async () =>
    toJson(StructSchema, await server.local(Admin).auditCertificates({})) as unknown as CertificateAudit;
  await server.agent();
  const clean = await audit();
  assert.deepEqual(
    clean.certificates.map(({ kind, entryId }) => `${kind} ${entryId.split(":")[0]}`),
    ["x509-ca authority", "x509-svid server", "x509-svid agent"],
  );
  assert.deepEqual([clean.issued, clean.duplicates, clean.unjournaled, clean.unfinished], [3, 0, 0, 0]);
  await server.store.nodes.update(server.registry.nodes()[0]!.id, (node) => ({ ...node, serial: "0badc0de" }));
  const { unjournaled, unknown } = await audit();
  assert.equal(unjournaled, 1);
  assert.equal(unknown[0]?.serial, "0badc0de");
});

test("an audit finds what was signed around the journal, and what the signer's log has lost", async (t) => {
  const server = await testServer(t);
  const audit = async () =>
    toJson(StructSchema, await server.local(Admin).auditCertificates({})) as unknown as CertificateAudit;
  await server.agent();
  assert.deepEqual((await audit()).unlogged, []);
  const { id: authorityId } = server.authority.x509.active();
  const notBeforeMs = Math.floor(server.clock.now() / 1000) * 1000;
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ format: "der", type: "spki" });
  const names = { kind: "x509-svid", authorityId, serial: `4f${"07".repeat(15)}`, spki, dnsNames: [] } as const;
  const times = { notBeforeMs, notAfterMs: notBeforeMs + 60_000 };
  // As one would who has taken over the server: the signer is asked, and the journal is not told.
  await server.signer.sign(await server.signer.prepare({ ...names, ...times, spiffeId: id("/stolen") }));
  const around = await audit();
  assert.equal(around.unjournaled, 1);
  assert.deepEqual(around.unknown, [{ spiffeId: id("/stolen"), serial: names.serial, seenBy: "the signer's log" }]);
  const intent = { ...around.certificates[0], serial: "4e".repeat(16) };
  const about = {
    kind: "x509-svid",
    spiffeId: id("/a"),
    entryId: "e",
    authorityId,
    dnsNames: [],
    audiences: [],
  } as const;
  await server.store.issuance.intend([{ ...about, serial: intent.serial, digest: "00", ...times }], server.clock.now());
  const der = (await server.store.issuance.list({ limit: 1 })).records[0]?.issued ?? new Uint8Array();
  await server.store.issuance.record([{ serial: intent.serial, issued: der }]);
  server.clock.advance(1);
  assert.deepEqual((await audit()).unlogged, [intent.serial]);
});

test("why a workload gets no identity: what matches, what nearly does, and what is elsewhere", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const match = await server.entry(id("/a"), agent.id, ["unix:uid:1"]);
  const near = await server.entry(id("/b"), agent.id, ["unix:uid:1", "unix:path:/bin/b"]);
  const elsewhere = await server.entry(id("/c"), id("/node/other"), ["unix:uid:1"]);
  const selectors = ["unix:uid:1", "unix:path:/bin/a"];
  const explain = async (of: string) =>
    toJson(StructSchema, await server.local(Admin).explainEntry({ agent: of, selectors })) as {
      matched: string[];
      nearMisses: { entryId: string; missing: string[] }[];
      elsewhere: { entryId: string }[];
    };
  const answer = await explain(agent.id);
  assert.deepEqual(answer.matched, [match]);
  assert.deepEqual(
    answer.nearMisses.map(({ entryId, missing }) => [entryId, missing]),
    [[near, ["unix:path:/bin/b"]]],
  );
  assert.deepEqual(
    answer.elsewhere.map(({ entryId }) => entryId),
    [elsewhere],
  );
  await assert.rejects(explain(id("/spire/agent/none/x")), { code: status.NOT_FOUND });
});

test("who hands an entry out, and why an entry that matches is not this agent's to hand out", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const ask = async (question: { agent?: string; selectors?: string[]; entryId?: string }) =>
    // biome-ignore lint/suspicious/noExplicitAny: a document as its readers see it.
    toJson(StructSchema, await server.local(Admin).explainEntry(question)) as any;
  const own = await server.entry(id("/a"), agent.id, ["unix:uid:1"]);
  const lost = await server.entry(id("/b"), id("/agent"), ["unix:uid:1", "unix:usr:web"]);
  const early = await server.entry(id("/c"), id("/spire/agent/join_token/later"), ["unix:uid:1"]);
  const good = await ask({ entryId: own });
  assert.deepEqual(good.obstacles, []);
  assert.deepEqual([good.agents, good.handedOutBy[0].spiffeId, good.handedOutBy[0].banned], [1, agent.id, false]);
  const bad = await ask({ entryId: lost });
  assert.deepEqual([bad.agents, bad.obstacles[0].reason], [0, "dangling-parent"]);
  assert.match(bad.obstacles[0].hint, /entry create -node -spiffeID spiffe:\/\/example.com\/agent/);
  assert.match(bad.hints[0].hint, /did you mean `unix:user:…`/);
  await assert.rejects(ask({ entryId: "none" }), { code: status.NOT_FOUND });
  const { elsewhere, agentOnServer } = await ask({ agent: agent.id, selectors: ["unix:uid:1", "unix:usr:web"] });
  assert.deepEqual(
    elsewhere.map(({ entryId, reason }: { entryId: string; reason: string }) => [entryId, reason]).sort(),
    [
      [early, "agent-not-attested"],
      [lost, "dangling-parent"],
    ].sort(),
  );
  assert.deepEqual([agentOnServer.spiffeId, agentOnServer.banned, agentOnServer.expired], [agent.id, false, false]);
  const anywhere = await ask({ selectors: ["unix:uid:1", "unix:usr:web"] });
  assert.deepEqual([anywhere.matched, anywhere.identities], [[own], [id("/a")]]);
  assert.equal(anywhere.elsewhere.length, 2);
  assert.equal(anywhere.mistakes[0].selector, "unix:usr:web");
  await server.store.nodes.update(agent.id, (node) => ({ ...node, banned: true }));
  assert.equal((await ask({ entryId: own })).obstacles[0].reason, "agent-banned");
  assert.equal((await ask({ agent: agent.id, selectors: [] })).agentOnServer.banned, true);
});

test("the admin socket is its owner's alone, and says that the server is well", async (t) => {
  const server = await testServer(t);
  assert.equal(statSync(server.adminSocket).mode & 0o777, 0o600);
  assert.equal((await server.local(Health).check({})).status, Serving.SERVING);
  await assert.rejects(server.local(Health).check({ service: "x" }), { code: status.NOT_FOUND });
});
