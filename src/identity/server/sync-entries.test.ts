import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import {
  Entry,
  type SyncAuthorizedEntriesResponse,
  SyncAuthorizedEntriesResponseSchema,
} from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { entryService } from "./entry-service.ts";
import { id, testServer } from "./fixture.ts";

/** A stream's answers, one at a time. */
function answers(call: NodeJS.ReadableStream) {
  const iterator = call[Symbol.asyncIterator]();
  return async () => (await iterator.next()).value as unknown as SyncAuthorizedEntriesResponse;
}

test("few entries come at once and whole", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  await server.entry(id("/web"), agent.id);
  const call = server.remote(Entry, agent).syncAuthorizedEntries();
  const next = answers(call);
  call.write({ outputMask: { spiffeId: true, revisionNumber: true } });
  const first = await next();
  assert.deepEqual(
    first.entries.map((entry) => [entry.spiffeId?.path, entry.selectors.length]),
    [["/web", 0]],
  );
  assert.equal(first.more, false);
  call.end();
});

test("a first request with ids, or a mask without the revision, is refused", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  for (const request of [{ ids: ["x"] }, { outputMask: { spiffeId: true } }]) {
    const call = server.remote(Entry, agent).syncAuthorizedEntries();
    const failed = new Promise((resolve) => call.once("error", (error: { code: number }) => resolve(error.code)));
    call.resume();
    call.write(request);
    assert.equal(await failed, status.INVALID_ARGUMENT);
  }
});

test("of many entries the revisions come first, in pages, then those that are asked for", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const ids: string[] = [];
  for (let index = 0; index < 5; index++) {
    ids.push(await server.entry(id(`/w${index}`), agent.id));
  }
  ids.sort();
  const stream = new PassThrough({ objectMode: true });
  const written: SyncAuthorizedEntriesResponse[] = [];
  const call = {
    iterator: (options: object) => stream.iterator(options),
    write(message: object, done: () => void) {
      written.push(create(SyncAuthorizedEntriesResponseSchema, message));
      done();
    },
    end() {},
  };
  const handlers = entryService(server.registry, 2);
  const node = server.registry.node(agent.id);
  const done = handlers.syncAuthorizedEntries?.(call as never, {
    caller: { kind: "local", process: null },
    node,
    scope: null,
    take: async () => {},
  });
  stream.write({ ids: [] });
  stream.write({ ids: [ids[4], ids[1], ids[0], "gone"] });
  stream.end();
  await done;
  const shape = written.map(({ entryRevisions, entries, more }) => [
    entryRevisions.map((revision) => revision.id),
    entries.map((entry) => entry.id),
    more,
  ]);
  assert.deepEqual(shape, [
    [ids.slice(0, 2), [], true],
    [ids.slice(2, 4), [], true],
    [ids.slice(4), [], false],
    [[], ids.slice(0, 2), true],
    [[], ids.slice(4), false],
  ]);
});
