import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { createConnection } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { credentials, Metadata, type ServiceError, status as Status } from "@grpc/grpc-js";
import { FakeClock } from "../../core/base/clock.ts";
import { signJws } from "../../core/jose/jws.ts";
import {
  type JWTBundlesResponse,
  SpiffeWorkloadAPI,
  type X509BundlesResponse,
  type X509SVIDResponse,
} from "../../gen/spiffe/workload_pb.js";
import { makeClient } from "../../io/rpc/adapter.ts";
import { workloadClient, workloadMetadata } from "../../workload/workload-api.ts";
import type { RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { FakeServer } from "./server-fixture.ts";

const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";

let clock: FakeClock;
let server: FakeServer;
let agent: RunningAgent;
let client: ReturnType<typeof workloadClient>;
const folder = testFolder();

before(async () => {
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  await server.listen();
  agent = await startTestAgent(server, folder.dir);
  client = workloadClient(agent.socket.replace("unix://", "unix:"));
});
beforeEach(async () => {
  server.setEntries(
    { id: "b", spiffeId: WEB, selectors: [UID], createdAt: 1, hint: "internal" },
    { id: "a", spiffeId: API, selectors: [UID], createdAt: 2 },
  );
  await until(() => agent.cache.svidCount === 2 && agent.cache.entries.has("b"), "two SVIDs");
});
after(async () => {
  client.close();
  await agent.close();
  await server.close();
  folder.remove();
});

const asked = { metadata: workloadMetadata() };

/** The first message of a stream, or its error. */
function first<T>(stream: {
  once(event: "data", listener: (message: T) => void): unknown;
  on(event: "error", listener: (error: ServiceError) => void): unknown;
  cancel(): void;
}): Promise<T> {
  return new Promise((resolve, reject) => {
    stream.once("data", (message) => {
      resolve(message);
      stream.cancel();
    });
    stream.on("error", reject);
  });
}

function failsWith(code: number, details: RegExp) {
  return (error: ServiceError) => {
    assert.deepEqual([error.code, details.test(error.details)], [code, true], `${error.code} ${error.details}`);
    return true;
  };
}

const calls: Record<string, (metadata: Metadata) => Promise<unknown>> = {
  FetchX509SVID: (metadata) => first(client.fetchX509SVID({}, { metadata })),
  FetchX509Bundles: (metadata) => first(client.fetchX509Bundles({}, { metadata })),
  FetchJWTBundles: (metadata) => first(client.fetchJWTBundles({}, { metadata })),
  FetchJWTSVID: (metadata) => client.fetchJWTSVID({ audience: ["shop"] }, { metadata }),
  ValidateJWTSVID: (metadata) => client.validateJWTSVID({ audience: "shop", svid: "x.y.z" }, { metadata }),
  FetchWITSVID: (metadata) => first(client.fetchWITSVID({}, { metadata })),
  FetchWITBundles: (metadata) => first(client.fetchWITBundles({}, { metadata })),
};

for (const [name, call] of Object.entries(calls)) {
  test(`${name} without the security header, or with another value, is InvalidArgument`, async () => {
    await assert.rejects(call(new Metadata()), failsWith(Status.INVALID_ARGUMENT, /^security header missing/));
    const wrong = new Metadata();
    wrong.set("workload.spiffe.io", "True");
    await assert.rejects(call(wrong), failsWith(Status.INVALID_ARGUMENT, /^security header missing/));
  });
}

test("identities come oldest entry first, each whole, with the bundle and its hint", async () => {
  const { svids, federatedBundles } = await first<X509SVIDResponse>(client.fetchX509SVID({}, asked));
  assert.deepEqual(
    svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [
      [WEB, "internal"],
      [API, ""],
    ],
  );
  for (const { x509Svid, x509SvidKey, bundle } of svids) {
    assert.ok(x509Svid.length > 0 && x509SvidKey.length > 0);
    assert.deepEqual(Buffer.from(bundle), Buffer.from(server.ca.der));
  }
  assert.deepEqual(federatedBundles, {});
});

test("a hint comes once: the oldest entry has it", async () => {
  server.setEntries(
    { id: "c", spiffeId: API, selectors: [UID], createdAt: 9, hint: "main" },
    { id: "d", spiffeId: WEB, selectors: [UID], createdAt: 3, hint: "main" },
  );
  await until(() => agent.cache.svidCount === 2 && agent.cache.entries.has("c"), "the entries");
  const { svids } = await first<X509SVIDResponse>(client.fetchX509SVID({}, asked));
  assert.deepEqual(
    svids.map(({ spiffeId }) => spiffeId),
    [WEB],
  );
});

test("without an identity everything but validation is PermissionDenied", async () => {
  server.setEntries({ id: "x", spiffeId: WEB, selectors: ["unix:uid:123456"] });
  await until(() => agent.cache.entries.has("x"), "the entry");
  for (const name of ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles", "FetchJWTSVID"]) {
    await assert.rejects(
      (calls[name] as (metadata: Metadata) => Promise<unknown>)(workloadMetadata()),
      failsWith(Status.PERMISSION_DENIED, /^no identity issued$/),
      name,
    );
  }
});

test("a hint comes once among JWT-SVIDs too", async () => {
  server.setEntries(
    { id: "c", spiffeId: API, selectors: [UID], createdAt: 9, hint: "main" },
    { id: "d", spiffeId: WEB, selectors: [UID], createdAt: 3, hint: "main" },
  );
  await until(() => agent.cache.entries.has("c"), "the entries");
  const { svids } = await client.fetchJWTSVID({ audience: ["shop"] }, asked);
  assert.deepEqual(
    svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [[WEB, "main"]],
  );
});

test("verifiers without an identity get the own bundles where that is allowed; foreign claims where they are named", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const other = testFolder();
  server.federated.set("other.org", [server.ca.der]);
  server.federatedJwt.set("other.org", publicKey.export({ format: "der", type: "spki" }));
  server.state.token = "token-1";
  server.setEntries({ id: "x", spiffeId: WEB, selectors: ["unix:uid:123456"], federatesWith: ["other.org"] });
  const verifiers = { allowUnauthenticated: true, foreignClaims: ["team"] };
  const running = await startTestAgent(server, other.dir, { verifiers });
  const its = workloadClient(running.socket.replace("unix://", "unix:"));
  try {
    const { bundles } = await first<X509BundlesResponse>(its.fetchX509Bundles({}, asked));
    assert.deepEqual(Object.keys(bundles), ["spiffe://example.com"]);
    const jwt = await first<JWTBundlesResponse>(its.fetchJWTBundles({}, asked));
    assert.deepEqual(Object.keys(jwt.bundles), ["spiffe://example.com"]);
    await assert.rejects(
      first(its.fetchX509SVID({}, asked)),
      failsWith(Status.PERMISSION_DENIED, /^no identity issued/),
    );
    server.setEntries({ id: "y", spiffeId: WEB, selectors: [UID], federatesWith: ["other.org"] });
    const ready = ({ cache }: RunningAgent) =>
      cache.entries.has("y") && cache.svidCount > 0 && cache.contents().bundles.length > 1;
    await until(() => ready(running) && ready(agent), "the entry and its bundle");
    const claims = { sub: "spiffe://other.org/a", aud: "shop", exp: clock.now() / 1_000 + 60, team: "a", secret: "b" };
    const svid = signJws({ alg: "ES256", kid: "foreign" }, JSON.stringify(claims), privateKey);
    const named = async (api: typeof its) => {
      const valid = await api.validateJWTSVID({ audience: "shop", svid }, asked);
      return [valid.spiffeId, Object.keys(valid.claims ?? {}).sort(), valid.claims?.aud];
    };
    assert.deepEqual(await named(its), ["spiffe://other.org/a", ["aud", "exp", "sub", "team"], ["shop"]]);
    assert.deepEqual(await named(client), ["spiffe://other.org/a", ["aud", "exp", "sub"], ["shop"]]);
  } finally {
    its.close();
    await running.close();
    other.remove();
  }
});

test("an open stream ends with PermissionDenied when the last identity is withdrawn", async () => {
  const stream = client.fetchX509SVID({}, asked);
  const ended = new Promise<ServiceError>((resolve) => stream.on("error", resolve));
  await new Promise((resolve) => stream.once("data", resolve));
  server.setEntries();
  assert.deepEqual([(await ended).code, (await ended).details], [Status.PERMISSION_DENIED, "no identity issued"]);
});

test("bundles are keyed by the trust domain's SPIFFE ID; JWT keys come without `use`", async () => {
  const x509 = await first(client.fetchX509Bundles({}, asked));
  assert.deepEqual(Object.keys(x509.bundles), ["spiffe://example.com"]);
  const jwt = await first(client.fetchJWTBundles({}, asked));
  const document = JSON.parse(Buffer.from(jwt.bundles["spiffe://example.com"] as Uint8Array).toString());
  assert.deepEqual(
    document.keys.map((key: { kid: string; use?: string }) => [key.kid, key.use]),
    [["jwt-1", undefined]],
  );
});

test("a JWT-SVID is for the audience asked for, is remembered, and validates", async () => {
  const before = server.calls.get("newJWTSVID") ?? 0;
  const { svids } = await client.fetchJWTSVID({ audience: ["shop"], spiffeId: WEB }, asked);
  assert.deepEqual(
    svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [[WEB, "internal"]],
  );
  const again = await client.fetchJWTSVID({ audience: ["shop"], spiffeId: WEB }, asked);
  assert.equal(again.svids[0]?.svid, svids[0]?.svid);
  assert.equal((server.calls.get("newJWTSVID") ?? 0) - before, 1);
  const all = await client.fetchJWTSVID({ audience: ["shop"] }, asked);
  assert.equal(all.svids.length, 2);
  const svid = svids[0]?.svid ?? "";
  const valid = await client.validateJWTSVID({ audience: "shop", svid }, asked);
  assert.equal(valid.spiffeId, WEB);
  assert.deepEqual([valid.claims?.sub, valid.claims?.aud], [WEB, ["shop"]]);
  for (const [audience, token] of [
    ["bank", svid],
    ["shop", `${svid.slice(0, -4)}AAAA`],
    ["shop", "not a token"],
  ] as const) {
    await assert.rejects(
      client.validateJWTSVID({ audience, svid: token }, asked),
      failsWith(Status.INVALID_ARGUMENT, /./),
    );
  }
});

test("a JWT-SVID past half of its life is signed anew; where the server is away the old one still serves", async () => {
  const fetch = async () => (await client.fetchJWTSVID({ audience: ["half"], spiffeId: WEB }, asked)).svids[0]?.svid;
  const one = await fetch();
  clock.advance(160_000);
  server.state.unavailable = true;
  assert.equal(await fetch(), one);
  server.state.unavailable = false;
  assert.notEqual(await fetch(), one);
});

test("requests without what they need are InvalidArgument", async () => {
  await assert.rejects(
    client.fetchJWTSVID({ audience: [] }, asked),
    failsWith(Status.INVALID_ARGUMENT, /^audience must be specified$/),
  );
  await assert.rejects(
    client.fetchJWTSVID({ audience: ["a"], spiffeId: "nonsense" }, asked),
    failsWith(Status.INVALID_ARGUMENT, /^invalid requested SPIFFE ID$/),
  );
  await assert.rejects(
    client.fetchJWTSVID({ audience: ["a"], spiffeId: "spiffe://example.com/other" }, asked),
    failsWith(Status.PERMISSION_DENIED, /^no identity issued$/),
  );
  await assert.rejects(
    client.validateJWTSVID({ audience: "", svid: "x" }, asked),
    failsWith(Status.INVALID_ARGUMENT, /^audience must be specified$/),
  );
  await assert.rejects(
    client.validateJWTSVID({ audience: "a", svid: "" }, asked),
    failsWith(Status.INVALID_ARGUMENT, /^svid must be specified$/),
  );
});

test("WIT-SVIDs are Unimplemented", async () => {
  await assert.rejects(first(client.fetchWITSVID({}, asked)), failsWith(Status.UNIMPLEMENTED, /./));
  await assert.rejects(first(client.fetchWITBundles({}, asked)), failsWith(Status.UNIMPLEMENTED, /./));
});

test("a thousand fetches at once are all answered", async () => {
  const clients = Array.from({ length: 10 }, () => workloadClient(agent.socket.replace("unix://", "unix:")));
  try {
    const fetches = Array.from({ length: 1_000 }, (_, index) =>
      first<X509SVIDResponse>((clients[index % 10] as typeof client).fetchX509SVID({}, asked)),
    );
    const answers = await Promise.all(fetches);
    assert.ok(answers.every(({ svids }) => svids.length === 2));
  } finally {
    for (const one of clients) {
      one.close();
    }
  }
});

test("a message larger than any request is refused", async () => {
  await assert.rejects(
    client.validateJWTSVID({ audience: "shop", svid: "x".repeat(300_000) }, asked),
    failsWith(Status.RESOURCE_EXHAUSTED, /./),
  );
});

test("what is no HTTP/2 harms nobody", async () => {
  const path = agent.socket.replace("unix://", "");
  for (const bytes of [
    "GET / HTTP/1.1\r\n\r\n",
    Buffer.alloc(50_000, 0xff),
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
  ]) {
    const socket = createConnection(path);
    socket.on("error", () => {});
    socket.write(bytes);
    await new Promise((resolve) => socket.once("close", resolve).once("data", resolve));
    socket.destroy();
  }
  const { svids } = await first<X509SVIDResponse>(client.fetchX509SVID({}, asked));
  assert.equal(svids.length, 2);
});

test("connections and streams that ended leave nothing behind", async () => {
  const another = makeClient(
    SpiffeWorkloadAPI,
    agent.socket.replace("unix://", "unix:"),
    credentials.createInsecure(),
    {
      "grpc.use_local_subchannel_pool": 1,
    },
  );
  const streams = Array.from({ length: 50 }, () => another.fetchX509SVID({}, asked));
  for (const stream of streams) {
    stream.on("error", () => {});
  }
  await Promise.all(streams.map((stream) => new Promise((resolve) => stream.once("data", resolve))));
  const connected = agent.connections().workload;
  for (const stream of streams) {
    stream.cancel();
  }
  another.close();
  await until(() => agent.connections().workload === connected - 1, "the connection is gone");
  await until(() => agent.watchedProcesses() === 0, "the streams are gone");
});
