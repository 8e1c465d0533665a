import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { LocalAuthority } from "../../gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import { type TestServer, testKey, testServer } from "./fixture.ts";

/** Both kinds behave alike, but for the words of one refusal. */
function operations(server: TestServer) {
  const client = server.local(LocalAuthority);
  return {
    x509: {
      rotation: server.authority.x509,
      state: () => client.getX509AuthorityState({}),
      prepare: async () => (await client.prepareX509Authority({})).preparedAuthority,
      activate: async (authorityId: string) => (await client.activateX509Authority({ authorityId })).activatedAuthority,
      taint: async (authorityId: string) => (await client.taintX509Authority({ authorityId })).taintedAuthority,
      revoke: async (authorityId: string) => (await client.revokeX509Authority({ authorityId })).revokedAuthority,
    },
    jwt: {
      rotation: server.authority.jwt,
      state: () => client.getJWTAuthorityState({}),
      prepare: async () => (await client.prepareJWTAuthority({})).preparedAuthority,
      activate: async (authorityId: string) => (await client.activateJWTAuthority({ authorityId })).activatedAuthority,
      taint: async (authorityId: string) => (await client.taintJWTAuthority({ authorityId })).taintedAuthority,
      revoke: async (authorityId: string) => (await client.revokeJWTAuthority({ authorityId })).revokedAuthority,
    },
  };
}

const refused = (code: number, details: string | RegExp) => (error: { code: number; details: string }) => {
  assert.deepEqual([error.code, error.details], [code, details]);
  return true;
};
const invalid = (details: string) => refused(status.INVALID_ARGUMENT, details);

for (const kind of ["x509", "jwt"] as const) {
  test(`${kind}: what may be done with an authority in each state, in SPIRE's words`, async (t) => {
    const server = await testServer(t);
    const { rotation, state, prepare, activate, taint, revoke } = operations(server)[kind];
    const first = rotation.active().id;
    const begin = await state();
    assert.equal(begin.active?.authorityId, first);
    assert.equal(begin.active?.expiresAt, BigInt(Math.floor(rotation.active().notAfterMs / 1_000)));
    assert.deepEqual([begin.prepared, begin.old], [undefined, undefined]);

    await assert.rejects(activate(""), invalid("no authority ID provided"));
    await assert.rejects(activate("abc"), invalid("unexpected authority ID"));
    await assert.rejects(taint(""), invalid("no authority ID provided"));
    await assert.rejects(taint(first), invalid("unable to taint current local authority"));
    await assert.rejects(taint("abc"), invalid("unexpected authority ID"));
    await assert.rejects(revoke(""), invalid("invalid authority ID: no authority ID provided"));
    await assert.rejects(revoke(first), invalid("invalid authority ID: unable to use current authority"));

    const next = (await prepare())?.authorityId ?? "";
    assert.equal((await state()).prepared?.authorityId, next);
    const wrong = "only Old local authorities can be tainted: unsupported local authority status: PREPARED";
    await assert.rejects(taint(next), invalid(wrong));
    const prepared = { x509: "only Old local authority can be revoked", jwt: "unable to use a prepared key" }[kind];
    await assert.rejects(revoke(next), invalid(`invalid authority ID: ${prepared}`));
    const unknown = {
      x509: "only Old local authority can be revoked",
      jwt: "no JWT authority found with provided authority ID",
    }[kind];
    await assert.rejects(revoke("abc"), invalid(`invalid authority ID: ${unknown}`));

    assert.equal((await activate(next))?.authorityId, next);
    const after = await state();
    assert.deepEqual([after.active?.authorityId, after.prepared, after.old?.authorityId], [next, undefined, first]);
    const again = "only Prepared authorities can be activated: unsupported local authority status: OLD";
    await assert.rejects(activate(first), refused(status.FAILED_PRECONDITION, again));

    assert.equal((await taint(first))?.authorityId, first);
    assert.equal((await revoke(first))?.authorityId, first);
    assert.equal((await state()).old, undefined);
    const bundle = await server.local(Bundle).getBundle({});
    assert.equal((kind === "x509" ? bundle.x509Authorities : bundle.jwtAuthorities).length, 1);
  });
}

test("a JWT key of the bundle that is none of ours can be revoked too, as in SPIRE", async (t) => {
  const server = await testServer(t);
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const foreign = { keyId: "foreign", publicKey: publicKey.export({ format: "der", type: "spki" }) };
  await server.local(Bundle).appendBundle({ jwtAuthorities: [foreign] });
  const { revoke } = operations(server).jwt;
  assert.equal((await revoke("foreign"))?.authorityId, "foreign");
  const { jwtAuthorities } = await server.local(Bundle).getBundle({});
  assert.deepEqual(
    jwtAuthorities.map(({ keyId }) => keyId),
    [server.authority.jwt.active().id],
  );
});

test("without an upstream authority there is none to taint or to revoke; WIT is not there", async (t) => {
  const client = (await testServer(t)).local(LocalAuthority);
  const none = refused(status.FAILED_PRECONDITION, "upstream authority is not configured");
  await assert.rejects(client.taintX509UpstreamAuthority({ subjectKeyId: "ab" }), none);
  await assert.rejects(client.revokeX509UpstreamAuthority({ subjectKeyId: "ab" }), none);
  await assert.rejects(client.getWITAuthorityState({}), { code: status.UNIMPLEMENTED });
});

test("an agent's connection outlives its authority by as long as it takes to renew over it, and no longer", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const client = server.remote(Agent, agent);
  await client.postStatus({});
  const { x509 } = server.authority;
  const old = x509.active().id;
  await x509.activate((await x509.prepare()).id);
  await x509.taint(old);
  await x509.revoke(old);
  assert.ok((await client.renewAgent({ params: { csr: testKey().csr } })).svid !== undefined);
  server.clock.advance(10_000);
  await assert.rejects(client.postStatus({}), (error: { code: number }) =>
    [status.PERMISSION_DENIED, status.UNAVAILABLE].includes(error.code),
  );
});
