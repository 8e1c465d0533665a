/**
 * Every MUST of the SPIFFE Workload Endpoint and the Workload API for servers (and for our own client), one test each, named by its
 * section. Editions: spiffe/spiffe at 665a28f3.
 */
import assert from "node:assert/strict";
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { after, before, beforeEach, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { type ClientReadableStream, credentials, Metadata, type ServiceError, status as Status } from "@grpc/grpc-js";
import { FakeClock } from "../../src/core/base/clock.ts";
import { splitDer } from "../../src/core/x509/der.ts";
import { ServerReflection } from "../../src/gen/grpc/reflection/v1/reflection_pb.js";
import { SpiffeWorkloadAPI, type X509SVIDResponse } from "../../src/gen/spiffe/workload_pb.js";
import type { RunningAgent } from "../../src/identity/agent/agent.ts";
import { startTestAgent, testFolder, until as untilTime } from "../../src/identity/agent/fixture.ts";
import { FakeServer } from "../../src/identity/agent/server-fixture.ts";
import { makeClient } from "../../src/io/rpc/adapter.ts";
import { socketTarget, workloadSocket } from "../../src/workload/socket.ts";
import { workloadClient, workloadMetadata } from "../../src/workload/workload-api.ts";

const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";
const BOTH = [
  { id: "b", spiffeId: WEB, selectors: [UID], createdAt: 1, hint: "internal", federatesWith: ["other.org"] },
  { id: "a", spiffeId: API, selectors: [UID], createdAt: 2, hint: "internal" },
  { id: "c", spiffeId: API, selectors: [UID], createdAt: 3 },
];

const clock = new FakeClock(Date.now());
const server = new FakeServer(clock);
const folder = testFolder();
let agent: RunningAgent;
let client: ReturnType<typeof workloadClient>;
const asked = { metadata: workloadMetadata() };
const until = (condition: () => boolean, what: string) => untilTime(condition, what, () => clock.advance(20));

before(async () => {
  server.federated.set("other.org", [server.ca.der]);
  await server.listen();
  server.setEntries(...BOTH);
  agent = await startTestAgent(server, folder.dir);
  client = workloadClient(agent.socket.replace("unix://", "unix:"));
});
beforeEach(async () => {
  server.setEntries(...BOTH);
  await until(() => agent.cache.svidCount === 3 && agent.cache.entries.has("c"), "the SVIDs");
});
after(async () => {
  client.close();
  await agent.close();
  await server.close();
  folder.remove();
});

function must(section: string, what: string, check: () => void | Promise<void>): void {
  test(`SPEC: ${section}: ${what}`, check);
}

function first<T>(stream: ClientReadableStream<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    stream.once("data", (message) => {
      resolve(message);
      stream.cancel();
    });
    stream.on("error", reject);
  });
}

const CALLS: Record<string, (metadata: Metadata) => Promise<unknown>> = {
  FetchX509SVID: (metadata) => first(client.fetchX509SVID({}, { metadata })),
  FetchX509Bundles: (metadata) => first(client.fetchX509Bundles({}, { metadata })),
  FetchJWTSVID: (metadata) => client.fetchJWTSVID({ audience: ["shop"] }, { metadata }),
  FetchJWTBundles: (metadata) => first(client.fetchJWTBundles({}, { metadata })),
  ValidateJWTSVID: (metadata) => client.validateJWTSVID({ audience: "shop", svid: "a.b.c" }, { metadata }),
  FetchWITSVID: (metadata) => first(client.fetchWITSVID({}, { metadata })),
  FetchWITBundles: (metadata) => first(client.fetchWITBundles({}, { metadata })),
};
const codeOf = (answer: Promise<unknown>) =>
  answer.then(
    () => 0,
    ({ code }: ServiceError) => code,
  );

must(
  "Workload Endpoint §3",
  "every request without `workload.spiffe.io: true`, to the letter, is refused",
  async () => {
    for (const [name, call] of Object.entries(CALLS)) {
      for (const value of [null, "True", "TRUE", "1", "", "false"]) {
        const metadata = new Metadata();
        if (value !== null) {
          metadata.set("workload.spiffe.io", value);
        }
        assert.equal(await codeOf(call(metadata)), Status.INVALID_ARGUMENT, `${name} ${value}`);
      }
    }
  },
);
must("Workload Endpoint §3.1, §5", "neither TLS nor a secret of the workload's is asked for", async () => {
  const plain = makeClient(SpiffeWorkloadAPI, agent.socket.replace("unix://", "unix:"), credentials.createInsecure());
  const { svids } = await first<X509SVIDResponse>(plain.fetchX509SVID({}, asked));
  plain.close();
  assert.equal(svids.length, 2);
});
must("Workload Endpoint §4", "our client falls back to SPIFFE_ENDPOINT_SOCKET", () => {
  assert.equal(workloadSocket(undefined, { SPIFFE_ENDPOINT_SOCKET: "unix:///run/a.sock" }), "unix:///run/a.sock");
  assert.equal(workloadSocket("unix:///given", { SPIFFE_ENDPOINT_SOCKET: "unix:///run/a.sock" }), "unix:///given");
});
must("Workload Endpoint §4", "a unix address has an absolute path, and nothing else", () => {
  assert.equal(socketTarget("unix:///run/a.sock"), "unix:/run/a.sock");
  for (const address of ["unix://run/a.sock", "unix://", "unix:a.sock", "unix:///a?b", "unix:///a#b", "http://a", ""]) {
    assert.throws(() => socketTarget(address), /not a unix socket's address/, address);
  }
});
must(
  "Workload Endpoint §6",
  "without the header it is InvalidArgument, without an identity PermissionDenied",
  async () => {
    assert.equal(await codeOf(CALLS.FetchX509SVID?.(new Metadata()) as Promise<unknown>), Status.INVALID_ARGUMENT);
    server.setEntries();
    await until(() => agent.cache.entries.size === 0, "no entries");
    for (const name of ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles"]) {
      assert.equal(await codeOf(CALLS[name]?.(workloadMetadata()) as Promise<unknown>), Status.PERMISSION_DENIED, name);
    }
  },
);
must("Workload Endpoint §7", "server reflection says what is served", async () => {
  const reflection = makeClient(
    ServerReflection,
    agent.socket.replace("unix://", "unix:"),
    credentials.createInsecure(),
  );
  const stream = reflection.serverReflectionInfo();
  const ask = (request: Parameters<typeof stream.write>[0]) =>
    new Promise<{ messageResponse: { case?: string | undefined; value?: unknown } }>((resolve) => {
      stream.once("data", resolve);
      stream.write(request);
    });
  const list = await ask({ messageRequest: { case: "listServices", value: "" } });
  const { service } = list.messageResponse.value as { service: { name: string }[] };
  assert.ok(service.some(({ name }) => name === "SpiffeWorkloadAPI"));
  assert.ok(service.some(({ name }) => name === "envoy.service.secret.v3.SecretDiscoveryService"));
  const found = await ask({ messageRequest: { case: "fileContainingSymbol", value: "SpiffeWorkloadAPI" } });
  const { fileDescriptorProto } = found.messageResponse.value as { fileDescriptorProto: Uint8Array[] };
  const files = fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
  assert.ok(files.some((file) => file.service.some(({ name }) => name === "SpiffeWorkloadAPI")));
  const none = await ask({ messageRequest: { case: "fileContainingSymbol", value: "nobody.Knows" } });
  assert.deepEqual(
    [none.messageResponse.case, (none.messageResponse.value as { errorCode: number }).errorCode],
    ["errorResponse", Status.NOT_FOUND],
  );
  stream.cancel();
  stream.on("error", () => {});
  reflection.close();
});

must("Workload API §2", "the service has the methods of the document, and no others", () => {
  assert.deepEqual(SpiffeWorkloadAPI.methods.map(({ name }) => name).sort(), Object.keys(CALLS).sort());
});
must("Workload API §4.3", "each message is the whole, and the first comes at once", async () => {
  const stream = client.fetchX509SVID({}, asked);
  stream.on("error", () => {});
  const messages: X509SVIDResponse[] = [];
  stream.on("data", (message) => messages.push(message));
  await until(() => messages.length === 1, "the first message");
  server.addEntry({ id: "d", spiffeId: `${API}-2`, selectors: [UID], createdAt: 9 });
  await until(() => messages.length === 2, "the next");
  stream.cancel();
  assert.deepEqual(
    messages.map(({ svids, federatedBundles }) => [svids.length, Object.keys(federatedBundles).length]),
    [
      [2, 1],
      [3, 1],
    ],
  );
});
must("Workload API §4.4", "what is redacted is left out of the next message", async () => {
  const stream = client.fetchX509SVID({}, asked);
  stream.on("error", () => {});
  const messages: X509SVIDResponse[] = [];
  stream.on("data", (message) => messages.push(message));
  await until(() => messages.length === 1, "the first message");
  server.setEntries({ id: "b", spiffeId: WEB, selectors: [UID], createdAt: 1, revision: 1 });
  await until(() => messages.at(-1)?.svids.length === 1 && messages.length > 1, "less");
  const keys = () => Object.keys(messages.at(-1)?.federatedBundles ?? {});
  await until(() => keys().length === 0, "and no foreign bundle");
  stream.cancel();
});
must("Workload API §4.5", "a request without a mandatory field is InvalidArgument", async () => {
  const wrong = [
    client.fetchJWTSVID({ audience: [] }, asked),
    client.fetchJWTSVID({ audience: [""] }, asked),
    client.validateJWTSVID({ audience: "", svid: "a.b.c" }, asked),
    client.validateJWTSVID({ audience: "shop", svid: "" }, asked),
  ];
  for (const call of wrong) {
    assert.equal(await codeOf(call), Status.INVALID_ARGUMENT);
  }
});
must(
  "Workload API §5.1, §5.2.1",
  "every field of an X.509-SVID is there: leaf first, its own PKCS#8 key, its own bundle",
  async () => {
    const { svids, crl } = await first<X509SVIDResponse>(client.fetchX509SVID({}, asked));
    assert.deepEqual([svids.length, crl], [2, []]);
    for (const { spiffeId, x509Svid, x509SvidKey, bundle } of svids) {
      const leaf = new X509Certificate(splitDer(x509Svid)[0] as Uint8Array);
      assert.equal(leaf.subjectAltName, `URI:${spiffeId}`);
      const key = createPrivateKey({ key: Buffer.from(x509SvidKey), format: "der", type: "pkcs8" });
      assert.ok(leaf.publicKey.equals(createPublicKey(key)));
      assert.ok(leaf.verify(new X509Certificate(bundle).publicKey));
    }
  },
);
must("Workload API §5.2.1, §6.2.1", "a hint comes once among the SVIDs of a response", async () => {
  const { svids } = await first<X509SVIDResponse>(client.fetchX509SVID({}, asked));
  assert.deepEqual(
    svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [
      [WEB, "internal"],
      [API, ""],
    ],
  );
  const jwt = await client.fetchJWTSVID({ audience: ["shop"] }, asked);
  assert.deepEqual(
    jwt.svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [
      [WEB, "internal"],
      [API, ""],
    ],
  );
});
must("Workload API §5.2.2, §6.2.2", "bundles have the own trust domain, by SPIFFE ID", async () => {
  const x509 = await first(client.fetchX509Bundles({}, asked));
  const jwt = await first(client.fetchJWTBundles({}, asked));
  for (const { bundles } of [x509, jwt]) {
    assert.deepEqual(Object.keys(bundles).sort(), ["spiffe://example.com", "spiffe://other.org"]);
  }
});
must(
  "Workload API §6.2.1",
  "the audience asked for is the token's; without an ID all identities get one, with one only it",
  async () => {
    const all = await client.fetchJWTSVID({ audience: ["shop", "bank"] }, asked);
    assert.deepEqual(
      all.svids.map(({ spiffeId }) => spiffeId),
      [WEB, API],
    );
    const one = await client.fetchJWTSVID({ audience: ["shop", "bank"], spiffeId: API }, asked);
    assert.deepEqual(
      one.svids.map(({ spiffeId }) => spiffeId),
      [API],
    );
    for (const { svid, spiffeId } of [...all.svids, ...one.svids]) {
      const claims = JSON.parse(Buffer.from(svid.split(".")[1] ?? "", "base64url").toString());
      assert.deepEqual([claims.sub, claims.aud], [spiffeId, ["shop", "bank"]]);
    }
  },
);
must("Workload API §6.2.2", "a JWT bundle is a JWK Set of JWT keys alone", async () => {
  const { bundles } = await first(client.fetchJWTBundles({}, asked));
  const { keys } = JSON.parse(Buffer.from(bundles["spiffe://example.com"] as Uint8Array).toString());
  assert.deepEqual(
    keys.map(({ kid, x5c }: { kid: string; x5c?: unknown }) => [kid, x5c]),
    [["jwt-1", undefined]],
  );
});
must(
  "Workload API §6.2.3, §6.3",
  "validation is that of JWT-SVIDs, with the bundle of the subject's trust domain",
  async () => {
    const { svids } = await client.fetchJWTSVID({ audience: ["shop"], spiffeId: WEB }, asked);
    const svid = svids[0]?.svid ?? "";
    const { spiffeId, claims } = await client.validateJWTSVID({ audience: "shop", svid }, asked);
    assert.deepEqual([spiffeId, claims?.sub, claims?.aud, typeof claims?.exp], [WEB, WEB, ["shop"], "number"]);
    const [header, payload] = svid.split(".");
    const other = Buffer.from(JSON.stringify({ sub: "spiffe://nobody.org/a", aud: ["shop"], exp: 9_999_999_999 }));
    for (const wrong of [
      `${header}.${payload}.AAAA`,
      `${header}.${other.toString("base64url")}.AAAA`,
      `${svid}.`,
      "x",
    ]) {
      assert.equal(
        await codeOf(client.validateJWTSVID({ audience: "shop", svid: wrong }, asked)),
        Status.INVALID_ARGUMENT,
      );
    }
    assert.equal(await codeOf(client.validateJWTSVID({ audience: "bank", svid }, asked)), Status.INVALID_ARGUMENT);
  },
);
must("Workload API §7", "the WIT-SVID profile is Unimplemented", async () => {
  for (const name of ["FetchWITSVID", "FetchWITBundles"]) {
    assert.equal(await codeOf(CALLS[name]?.(workloadMetadata()) as Promise<unknown>), Status.UNIMPLEMENTED, name);
  }
});
must("Workload API §8", "the first SVID is the default identity, and stays it", async () => {
  server.setEntries(...[...BOTH].reverse(), { id: "0", spiffeId: `${WEB}-new`, selectors: [UID], createdAt: 99 });
  await until(() => agent.cache.svidCount === 4, "a newer entry");
  const { svids } = await first<X509SVIDResponse>(client.fetchX509SVID({}, asked));
  assert.equal(svids[0]?.spiffeId, WEB);
});
