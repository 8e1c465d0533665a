import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";
import { emptyBundle } from "../../core/spiffe/bundle.ts";
import { parseTrustDomain } from "../../core/spiffe/id.ts";
import { Node, type WatchEvent } from "../../gen/everyhop/node/node_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import {
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
} from "../../gen/spire/api/types/status_pb.js";
import { id, type TestServer, testServer, wire } from "./fixture.ts";

/** Events as they come; `next` waits for one more. */
function watch(server: TestServer, agent: Awaited<ReturnType<TestServer["agent"]>>) {
  const call = server.remote(Node, agent).watch({});
  const events: WatchEvent[] = [];
  const waiting: ((event: WatchEvent) => void)[] = [];
  const ended = new Promise<ServiceError>((resolve) => call.once("error", resolve));
  call.on("data", (event: WatchEvent) => {
    const waiter = waiting.shift();
    if (waiter === undefined) {
      events.push(event);
    } else {
      waiter(event);
    }
  });
  const next = (): Promise<WatchEvent> => {
    const event = events.shift();
    return event === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(event);
  };
  return { next, ended, pending: events };
}

test("an agent hears at once how things stand, and of each change that touches it", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const watched = watch(server, agent);
  const first = await watched.next();
  assert.equal(first.bundleSequence, server.identity.bundles.own.value.sequence);
  const mine = await server.entry(id("/web"), agent.id);
  const created = await watched.next();
  assert.ok(created.entriesRevision > first.entriesRevision);
  await server.entry(id("/db"), id("/spire/agent/join_token/other"));
  await server.registry.kill(id("/web"));
  const killed = await watched.next();
  assert.ok(killed.entriesRevision > created.entriesRevision);
  await server.registry.restore(id("/web"));
  await watched.next();
  await server.registry.updateEntry(mine, (entry) => ({ ...entry, hint: "x" }));
  await watched.next();
  await server.registry.deleteEntry(mine);
  await watched.next();
  await server.authority.x509.prepare();
  assert.equal((await watched.next()).bundleSequence, server.identity.bundles.own.value.sequence);
  assert.deepEqual(watched.pending, [], "the other agent's entry was not told");
});

test("a changed bundle is told to agents whose entries federate with it, and to no others", async (t) => {
  const server = await testServer(t);
  const [one, two] = [await server.agent(), await server.agent()];
  const other = parseTrustDomain("other.org");
  const set = () => server.identity.bundles.set(other, () => emptyBundle(other));
  await set();
  const entry = { spiffeId: id("/web"), parentId: one.id, selectors: ["unix:uid:0"], federatesWith: [other] };
  await server.registry.createEntry(entry);
  const [federates, doesNot] = [watch(server, one), watch(server, two)];
  await Promise.all([federates.next(), doesNot.next()]);
  await set();
  await federates.next();
  assert.deepEqual(doesNot.pending, []);
});

test("a banned agent's stream ends and says why", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const watched = watch(server, agent);
  await watched.next();
  await server.local(Agent).banAgent({ id: wire(agent.id) });
  const error = await watched.ended;
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const [any] = fromBinary(StatusSchema, bytes as Buffer).details;
  assert.equal(any && anyUnpack(any, PermissionDeniedDetailsSchema)?.reason, Reason.AGENT_BANNED);
});

test("a stream ends with the SVID it was opened with", async (t) => {
  const server = await testServer(t, { x509SvidTtlMs: 10_000 });
  const watched = watch(server, await server.agent());
  await watched.next();
  server.clock.advance(10_000);
  assert.match((await watched.ended).details, /expired/);
});
