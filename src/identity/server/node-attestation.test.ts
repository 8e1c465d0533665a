import assert from "node:assert/strict";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";
import { EveryhopError } from "../../core/base/errors.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { Agent, type AttestAgentResponse } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { PermissionDeniedDetails_Reason as Reason } from "../../gen/spire/api/types/status_pb.js";
import type { RpcClient } from "../../io/rpc/adapter.ts";
import type { NodeVerifier } from "../attest/node/proof.ts";
import { failsWith, id, refusedBecause, svidOf, type TestKey, testKey, testServer, wire } from "./fixture.ts";

/** Proves by repeating what the challenge says; what the payload says of the node is believed. */
function echo(options: { once?: boolean } = {}): NodeVerifier & { found: string[] } {
  const found = ["echo:rack:1", "echo:rack:1", "echo:zone:eu"];
  return {
    type: "echo",
    found,
    async verify(payload, attempt) {
      const challenge = Buffer.from("again");
      if (Buffer.compare(await attempt.challenge(challenge), challenge) !== 0) {
        throw new EveryhopError("permission-denied", "no echo");
      }
      const path = `/spire/agent/echo/${Buffer.from(payload)}`;
      return { path, selectors: [...found], reattestable: options.once !== true, once: options.once === true };
    },
  };
}

interface Saying {
  readonly payload?: string;
  readonly answer?: (challenge: Uint8Array) => Uint8Array;
  readonly key?: TestKey;
}

function attestBy(client: RpcClient<typeof Agent>, saying: Saying = {}): Promise<X509Svid> {
  const { payload = "node-1", answer = (bytes) => bytes, key = testKey() } = saying;
  const call = client.attestAgent();
  return new Promise((resolve, reject) => {
    call.on("error", reject);
    call.on("data", ({ step }: AttestAgentResponse) => {
      if (step.case === "challenge") {
        call.write({ step: { case: "challengeResponse", value: answer(step.value) } });
      } else if (step.case === "result") {
        call.end();
        resolve(svidOf(step.value.svid?.certChain ?? [], key));
      }
    });
    const data = { type: "echo", payload: Buffer.from(payload) };
    call.write({ step: { case: "params", value: { data, params: { csr: key.csr } } } });
  });
}

test("a node is challenged, comes in, and comes again with what is found then", async (t) => {
  const verifier = echo();
  const server = await testServer(t, { verifiers: [verifier] });
  const agent = await attestBy(server.remote(Agent, null));
  assert.equal(agent.id, id("/spire/agent/echo/node-1"));
  const selectors = ["echo:rack:1", "echo:zone:eu", `spiffe_id:${agent.id}`];
  assert.deepEqual(server.registry.node(agent.id)?.selectors, selectors, "without duplicates");
  verifier.found.splice(0, 3, "echo:rack:2");
  const again = await attestBy(server.remote(Agent, agent));
  assert.deepEqual(server.registry.node(agent.id)?.selectors, ["echo:rack:2", `spiffe_id:${agent.id}`], "replaced");
  await server.remote(Agent, again).postStatus({});
  await assert.rejects(server.remote(Agent, agent).postStatus({}), refusedBecause(Reason.AGENT_NOT_ACTIVE));
  const renewal = server.remote(Agent, again).renewAgent({ params: { csr: testKey().csr } });
  await assert.rejects(renewal, refusedBecause(Reason.AGENT_MUST_REATTEST));
});

test("a wrong answer, none, and none that is expected", async (t) => {
  const server = await testServer(t, { verifiers: [echo()] });
  const wrong = attestBy(server.remote(Agent, null), { answer: () => Buffer.from("x") });
  await assert.rejects(wrong, failsWith(status.PERMISSION_DENIED, /no echo/));
  const call = server.remote(Agent, null).attestAgent();
  const failed = new Promise((_, reject) => call.on("error", reject));
  const params = { data: { type: "echo", payload: Buffer.from("n") }, params: { csr: testKey().csr } };
  call.on("data", () => call.write({ step: { case: "params", value: params } }));
  call.write({ step: { case: "params", value: params } });
  await assert.rejects(failed, failsWith(status.INVALID_ARGUMENT, /not answered/));
  const gone = server.remote(Agent, null).attestAgent();
  const ended = new Promise((_, reject) => gone.on("error", reject));
  gone.on("data", () => gone.end());
  gone.write({ step: { case: "params", value: params } });
  await assert.rejects(ended, failsWith(status.INVALID_ARGUMENT, /not answered/));
  assert.deepEqual(server.registry.nodes(), []);
});

test("what is missing, and what nobody knows", async (t) => {
  const server = await testServer(t, { verifiers: [echo()] });
  const csr = testKey().csr;
  const payload = Buffer.from("n");
  const table: [object, number, RegExp][] = [
    [{ params: { csr } }, status.INVALID_ARGUMENT, /missing attestation data/],
    [{ data: { type: "", payload }, params: { csr } }, status.INVALID_ARGUMENT, /missing attestation data/],
    [{ data: { type: "echo", payload: new Uint8Array() }, params: { csr } }, status.INVALID_ARGUMENT, /payload/],
    [{ data: { type: "echo", payload } }, status.INVALID_ARGUMENT, /missing CSR/],
    [{ data: { type: "echo", payload }, params: { csr: payload } }, status.INVALID_ARGUMENT, /./],
    [
      { data: { type: "nobody's", payload }, params: { csr } },
      status.FAILED_PRECONDITION,
      /could not find node attestor/,
    ],
  ];
  for (const [params, code, message] of table) {
    const call = server.remote(Agent, null).attestAgent();
    const failed = new Promise((_, reject) => call.on("error", reject));
    call.on("data", () => {});
    call.write({ step: { case: "params", value: params as never } });
    await assert.rejects(failed, failsWith(code, message), JSON.stringify(params));
  }
});

test("banned, evicted, and back: by SPIRE's rules", async (t) => {
  const server = await testServer(t, { verifiers: [echo()] });
  const agents = server.local(Agent);
  const agent = await attestBy(server.remote(Agent, null));
  await agents.banAgent({ id: wire(agent.id) });
  await assert.rejects(server.remote(Agent, agent).postStatus({}), refusedBecause(Reason.AGENT_BANNED));
  await assert.rejects(attestBy(server.remote(Agent, null)), refusedBecause(Reason.AGENT_BANNED));
  await agents.deleteAgent({ id: wire(agent.id) });
  await assert.rejects(server.remote(Agent, agent).postStatus({}), refusedBecause(Reason.AGENT_NOT_ATTESTED));
  const back = await attestBy(server.remote(Agent, null));
  await server.remote(Agent, back).postStatus({});
});

test("trust on first use: of twenty who race one comes in, and nobody after until it is evicted", async (t) => {
  const server = await testServer(t, { verifiers: [echo({ once: true })] });
  const racing = Array.from({ length: 20 }, () => attestBy(server.remote(Agent, null)));
  const results = await Promise.allSettled(racing);
  const winners = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  assert.equal(winners.length, 1);
  const [agent] = winners as [X509Svid];
  await server.remote(Agent, agent).renewAgent({ params: { csr: testKey().csr } });
  server.clock.advance(60_000);
  await assert.rejects(attestBy(server.remote(Agent, null)), failsWith(status.PERMISSION_DENIED, /already been used/));
  await server.local(Agent).deleteAgent({ id: wire(agent.id) });
  await attestBy(server.remote(Agent, null));
});

test("a node alias gives its children to the agents whose nodes have its selectors, and to no others", async (t) => {
  const verifier = echo();
  const server = await testServer(t, { verifiers: [verifier] });
  const alias = await server.entry(id("/rack/1"), id("/spire/server"), ["echo:rack:1"]);
  const child = await server.entry(id("/web"), id("/rack/1"));
  const mine = async (agent: X509Svid) => {
    const { entries } = await server.remote(Entry, agent).getAuthorizedEntries({});
    return entries.map((entry) => entry.id).filter((entry) => entry !== alias);
  };
  assert.deepEqual(await mine(await attestBy(server.remote(Agent, null))), [child]);
  verifier.found.splice(0, 3, "echo:rack:2");
  assert.deepEqual(await mine(await attestBy(server.remote(Agent, null), { payload: "node-2" })), []);
});

test("agents that expired are forgotten where that is asked for; banned ones are not", async (t) => {
  const server = await testServer(t, { verifiers: [echo()] });
  const agent = await attestBy(server.remote(Agent, null));
  const outcast = await attestBy(server.remote(Agent, null), { payload: "outcast" });
  const joined = await server.agent();
  await server.local(Agent).banAgent({ id: wire(outcast.id) });
  server.clock.advance(3 * 3_600_000);
  await server.identity.nodes.prune(null);
  assert.equal(server.registry.nodes().length, 3);
  await server.identity.nodes.prune({ expiredForMs: 24 * 3_600_000, nonReattestable: true });
  assert.equal(server.registry.nodes().length, 3);
  await server.identity.nodes.prune({ expiredForMs: 3_600_000, nonReattestable: false });
  assert.equal(server.registry.node(agent.id), null);
  assert.notEqual(server.registry.node(joined.id), null, "its token is used: it would not come back");
  await server.identity.nodes.prune({ expiredForMs: 3_600_000, nonReattestable: true });
  assert.deepEqual(
    server.registry.nodes().map((node) => node.id),
    [outcast.id],
  );
});
