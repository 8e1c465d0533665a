/** SDS as an Envoy sees it: an emulated client that speaks Envoy's side of the protocol. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { after, afterEach, before, test } from "node:test";
import type { JsonObject } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { credentials, type ServiceError, status as Status } from "@grpc/grpc-js";
import { FakeClock } from "../../core/base/clock.ts";
import {
  type Secret,
  SecretSchema,
  SPIFFECertValidatorConfigSchema,
} from "../../gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js";
import type { DiscoveryResponse } from "../../gen/envoy/service/discovery/v3/discovery_pb.js";
import { SecretDiscoveryService } from "../../gen/envoy/service/secret/v3/sds_pb.js";
import { makeClient } from "../../io/rpc/adapter.ts";
import type { RunningAgent } from "./agent.ts";
import { startTestAgent, testFolder, until as untilTime } from "./fixture.ts";
import { SDS_DEFAULTS } from "./sds-secrets.ts";
import { FakeServer } from "./server-fixture.ts";

const UID = `unix:uid:${process.getuid?.()}`;
const WEB = "spiffe://example.com/ns/shop/sa/web";
const API = "spiffe://example.com/ns/shop/sa/api";
const TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const BOTH = [
  { id: "e1", spiffeId: WEB, selectors: [UID], createdAt: 1, federatesWith: ["other.org"] },
  { id: "e2", spiffeId: API, selectors: [UID], createdAt: 2 },
];

let clock: FakeClock;
let server: FakeServer;
let agent: RunningAgent;
let client: ReturnType<typeof connect>;
const folder = testFolder();
const foreign = new FakeServer(new FakeClock(Date.now()));
const streams: { cancel(): void }[] = [];

/** Time moves on meanwhile, so that what is retried is. */
const until = (condition: () => boolean, what: string) => untilTime(condition, what, () => clock.advance(20));

const connect = (running: RunningAgent) =>
  makeClient(SecretDiscoveryService, running.socket.replace("unix://", "unix:"), credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });

before(async () => {
  clock = new FakeClock(Date.now());
  server = new FakeServer(clock);
  server.federated.set("other.org", [foreign.ca.der]);
  await server.listen();
  server.setEntries(...BOTH);
  agent = await startTestAgent(server, folder.dir);
  client = connect(agent);
});
afterEach(async () => {
  for (const stream of streams.splice(0)) {
    stream.cancel();
  }
  server.setEntries(...BOTH);
  await until(() => agent.cache.svidCount === 2 && agent.cache.entries.has("e2"), "the entries are back");
});
after(async () => {
  client.close();
  await agent.close();
  await server.close();
  folder.remove();
});

function node(major: number, minor: number, metadata: JsonObject = {}) {
  const version = { majorNumber: major, minorNumber: minor, patch: 0 };
  return { metadata, userAgentVersionType: { case: "userAgentBuildVersion" as const, value: { version } } };
}
const NEW = node(1, 40);
const OLD = node(1, 17);

/** What a secret is, in words. */
function describe(secret: Secret): string {
  const { name, type } = secret;
  if (type.case === "tlsCertificate") {
    const chain = inline(type.value.certificateChain?.specifier);
    assert.match(inline(type.value.privateKey?.specifier), /^-----BEGIN PRIVATE KEY-----/);
    return `${name}: certificate of ${new X509Certificate(chain).subjectAltName?.replace("URI:", "")}`;
  }
  const { trustedCa, customValidatorConfig } = type.value ?? {};
  if (trustedCa !== undefined) {
    return `${name}: ${inline(trustedCa.specifier).match(/BEGIN CERT/g)?.length} plain`;
  }
  assert.equal(customValidatorConfig?.name, "envoy.tls.cert_validator.spiffe");
  const config = anyUnpack(customValidatorConfig?.typedConfig as never, SPIFFECertValidatorConfigSchema);
  const domains = config?.trustDomains.map(({ name: domain, trustBundle }) => {
    return `${domain}(${inline(trustBundle?.specifier).match(/BEGIN CERT/g)?.length})`;
  });
  return `${name}: ${domains?.join()}`;
}

function inline(specifier: { case?: string | undefined; value?: unknown } | undefined): string {
  assert.equal(specifier?.case, "inlineBytes");
  return Buffer.from(specifier?.value as Uint8Array).toString();
}

const secretsOf = ({ resources }: DiscoveryResponse) => resources.map((any) => anyUnpack(any, SecretSchema) as Secret);
const words = (response: DiscoveryResponse) => secretsOf(response).map(describe);

/** One stream as Envoy holds it. */
function open(names: readonly string[], envoy: object = NEW) {
  const stream = client.streamSecrets();
  streams.push(stream);
  const answers: DiscoveryResponse[] = [];
  let failure: ServiceError | null = null;
  stream.on("data", (answer) => answers.push(answer));
  stream.on("error", (error: ServiceError) => {
    failure = error;
  });
  const ask = (request: object) => stream.write({ typeUrl: TYPE_URL, ...request });
  ask({ resourceNames: names, node: envoy });
  return {
    stream,
    answers,
    ask,
    async answer(index: number): Promise<DiscoveryResponse> {
      await until(() => answers.length > index || failure !== null, `answer ${index}`);
      assert.equal(failure, null);
      return answers[index] as DiscoveryResponse;
    },
    async failure(): Promise<string> {
      await until(() => failure !== null, "the end");
      const { code, details } = failure as unknown as ServiceError;
      return `${Status[code]}: ${details}`;
    },
    acknowledge({ versionInfo, nonce }: DiscoveryResponse, more: object = {}) {
      ask({ resourceNames: names, versionInfo, responseNonce: nonce, ...more });
    },
  };
}

const OWN = "spiffe://example.com";
const OTHER = "spiffe://other.org";
const ALL_ANSWER = [
  `${OWN}: example.com(1)`,
  `${OTHER}: other.org(1)`,
  `${WEB}: certificate of ${WEB}`,
  `${API}: certificate of ${API}`,
];
const CASES: readonly (readonly [string, readonly string[], object, readonly string[]])[] = [
  ["`default` is the first SVID", ["default"], NEW, [`default: certificate of ${WEB}`]],
  ["an SVID by its SPIFFE ID", [API], NEW, [`${API}: certificate of ${API}`]],
  ["`ROOTCA` is the own trust domain, by SPIFFE's validator", ["ROOTCA"], NEW, ["ROOTCA: example.com(1)"]],
  ["`ALL` is every trust domain, each by its own bundle", ["ALL"], NEW, ["ALL: example.com(1),other.org(1)"]],
  ["a trust domain by its ID", [OTHER], NEW, [`${OTHER}: other.org(1)`]],
  ["no names: everything", [], NEW, ALL_ANSWER],
  ["empty names are none", ["", ""], NEW, ALL_ANSWER],
  ["Envoy 1.18 has the validator", ["ROOTCA"], node(1, 18), ["ROOTCA: example.com(1)"]],
  ["Envoy 2 has it", ["ROOTCA"], node(2, 0), ["ROOTCA: example.com(1)"]],
  ["Envoy 1.17 has not", ["ROOTCA"], OLD, ["ROOTCA: 1 plain"]],
  ["a client that says no version has not", ["ROOTCA"], {}, ["ROOTCA: 1 plain"]],
  ["told not to, as a boolean", ["ROOTCA"], node(1, 40, { disable_spiffe_cert_validation: true }), ["ROOTCA: 1 plain"]],
  ["told not to, as text", [OTHER], node(1, 40, { disable_spiffe_cert_validation: "true" }), [`${OTHER}: 1 plain`]],
  ["told nonsense", ["ROOTCA"], node(1, 40, { disable_spiffe_cert_validation: "x" }), ["ROOTCA: example.com(1)"]],
];

for (const [name, names, envoy, expected] of CASES) {
  test(`SDS: ${name}, by stream and by fetch`, async () => {
    const streamed = await open(names, envoy).answer(0);
    assert.deepEqual(words(streamed), expected);
    assert.deepEqual([streamed.versionInfo, streamed.typeUrl], ["1", TYPE_URL]);
    assert.match(streamed.nonce, /^[0-9a-f]{8}$/);
    const request = { resourceNames: [...names], typeUrl: TYPE_URL, node: envoy };
    const fetched = await client.fetchSecrets(request);
    assert.deepEqual(words(fetched), expected);
    assert.deepEqual([fetched.versionInfo, fetched.nonce, fetched.typeUrl], ["", "", TYPE_URL]);
  });
}

const REFUSED: readonly (readonly [string, readonly string[], object, string])[] = [
  [
    "names that are nobody's, sorted",
    ["zebra", "default", "ape"],
    NEW,
    'INVALID_ARGUMENT: workload is not authorized for the requested identities ["ape" "zebra"]',
  ],
  [
    "another workload's identity",
    ["spiffe://example.com/other"],
    NEW,
    'INVALID_ARGUMENT: workload is not authorized for the requested identities ["spiffe://example.com/other"]',
  ],
  [
    "a bundle by two names in one request",
    ["ROOTCA", "ALL"],
    NEW,
    'INVALID_ARGUMENT: workload is not authorized for the requested identities ["ALL"]',
  ],
  [
    "ALL, of an Envoy without the validator",
    ["ALL"],
    OLD,
    'INTERNAL: unable to use "SPIFFE validator" on Envoy below 1.17',
  ],
];
for (const [name, names, envoy, expected] of REFUSED) {
  test(`SDS refuses ${name}`, async () => {
    assert.equal(await open(names, envoy).failure(), expected);
    await assert.rejects(client.fetchSecrets({ resourceNames: [...names], node: envoy }), (error: ServiceError) => {
      assert.equal(`${Status[error.code]}: ${error.details}`, expected);
      return true;
    });
  });
}

test("DeltaSecrets is Unimplemented", async () => {
  const stream = client.deltaSecrets();
  streams.push(stream);
  const error = await new Promise<ServiceError>((resolve) => stream.on("error", resolve));
  assert.equal(error.code, Status.UNIMPLEMENTED);
});

test("other names on the same stream are answered at once, in the same version", async () => {
  const envoy = open(["default"]);
  const { versionInfo, nonce } = await envoy.answer(0);
  envoy.ask({ resourceNames: ["ROOTCA"], versionInfo, responseNonce: nonce });
  const second = await envoy.answer(1);
  assert.deepEqual(words(second), ["ROOTCA: example.com(1)"]);
  assert.deepEqual([second.versionInfo, second.nonce === nonce], [versionInfo, false]);
});

test("a request with a stale nonce is passed over", async () => {
  const envoy = open(["default"]);
  await envoy.answer(0);
  envoy.ask({ resourceNames: [API], versionInfo: "1", responseNonce: "00000000" });
  server.setEntries(...BOTH, { id: "e3", spiffeId: `${WEB}-2`, selectors: [UID], createdAt: 3 });
  await until(() => agent.cache.svidCount === 3, "another SVID");
  envoy.stream.end();
  await new Promise((resolve) => envoy.stream.once("end", resolve));
  assert.deepEqual(envoy.answers.flatMap(words), [`default: certificate of ${WEB}`]);
});

test("a refusal is no reason to send the same again, and the names in it count", async () => {
  const envoy = open(["default"]);
  const { nonce } = await envoy.answer(0);
  envoy.ask({
    resourceNames: ["default"],
    versionInfo: "",
    responseNonce: nonce,
    errorDetail: { code: 3, message: "no" },
  });
  envoy.ask({ resourceNames: [API], versionInfo: "", responseNonce: nonce });
  assert.deepEqual(words(await envoy.answer(1)), [`${API}: certificate of ${API}`]);
});

test("without an identity the bundles are served all the same, and `default` comes with the entry", async () => {
  server.setEntries({ id: "e9", spiffeId: WEB, selectors: ["unix:uid:123456"] });
  await until(() => agent.cache.entries.has("e9"), "the entry of another");
  assert.deepEqual(words(await open(["ROOTCA"]).answer(0)), ["ROOTCA: example.com(1)"]);
  assert.deepEqual(words(await open([]).answer(0)), [`${OWN}: example.com(1)`]);
  assert.match(await open(["default"]).failure(), /^INVALID_ARGUMENT: .*\["default"\]$/);
});

test("an identity that is withdrawn ends the stream that was for it", async () => {
  const envoy = open([API]);
  envoy.acknowledge(await envoy.answer(0));
  server.setEntries(BOTH[0] as (typeof BOTH)[number]);
  assert.match(await envoy.failure(), /^INVALID_ARGUMENT: workload is not authorized/);
});

test("two entries of one identity are one secret", async () => {
  server.setEntries(...BOTH, { id: "e3", spiffeId: API, selectors: [UID], createdAt: 3 });
  await until(() => agent.cache.svidCount === 3, "the SVIDs");
  assert.deepEqual(words(await open([]).answer(0)), ALL_ANSWER);
});

test("the names are what the configuration says", async () => {
  const other = testFolder();
  server.state.token = "token-1";
  const sds = {
    ...SDS_DEFAULTS,
    defaultSvidName: "mine",
    defaultBundleName: "roots",
    defaultAllBundlesName: "every",
    disableSpiffeCertValidation: true,
  };
  const configured = await startTestAgent(server, other.dir, { sds });
  const its = connect(configured);
  try {
    await until(() => configured.cache.svidCount === 2, "the SVIDs");
    const fetch = async (...names: string[]) => words(await its.fetchSecrets({ resourceNames: names, node: NEW }));
    assert.deepEqual(await fetch("mine", "roots"), ["roots: 1 plain", `mine: certificate of ${WEB}`]);
    await assert.rejects(fetch("default"), /not authorized/);
    await assert.rejects(fetch("every"), (error: ServiceError) => error.code === Status.INTERNAL);
  } finally {
    its.close();
    await configured.close();
    other.remove();
  }
});

test("streams that ended leave nothing behind", async () => {
  const many = Array.from({ length: 30 }, () => open(["default"]));
  await Promise.all(many.map((one) => one.answer(0)));
  many.forEach(({ stream }, index) => void (index % 2 === 0 ? stream.cancel() : stream.end()));
  await until(() => agent.watchedProcesses() === 0, "the streams are gone");
});

test("an acknowledgement is not answered; a rotated SVID is pushed with a new version and nonce", async () => {
  const envoy = open(["default"]);
  const bundle = open(["ROOTCA"]);
  const first = await envoy.answer(0);
  envoy.acknowledge(first);
  bundle.acknowledge(await bundle.answer(0));
  server.rotateCa("taint");
  const second = await envoy.answer(1);
  assert.deepEqual([second.versionInfo === first.versionInfo, second.nonce === first.nonce], [false, false]);
  assert.notDeepEqual(second.resources, first.resources);
  assert.deepEqual(words(await bundle.answer(1)), ["ROOTCA: example.com(2)"]);
});
