import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { EveryhopError } from "../core/base/errors.ts";
import { loadAgentConfig, readJoinToken } from "./agent-config.ts";
import { kubeletOptions, makeKubeObjects, makeWorkloadAttestors } from "./workload-attestors.ts";

const dir = mkdtempSync(join(tmpdir(), "everyhop-config-"));
after(() => rmSync(dir, { recursive: true, force: true }));

const file = join(dir, "agent.yaml");
const load = (text: string) => {
  writeFileSync(file, text);
  return loadAgentConfig(file);
};
const MINIMUM = "trustDomain: example.com\nserver: localhost:8081\ndataDir: data\ntrustBundle: bundle.pem\n";

test("a minimal configuration has defaults; paths are relative to the file", () => {
  assert.deepEqual(load(MINIMUM), {
    trustDomain: "example.com",
    servers: ["localhost:8081"],
    dataDir: join(dir, "data"),
    cache: "disk",
    cacheKeyFile: join(dir, "data-key", "cache.key"),
    joinToken: null,
    joinTokenFile: null,
    nodeAttestor: null,
    trustBundle: join(dir, "bundle.pem"),
    socket: "/run/everyhop/agent.sock",
    brokerSocket: "/run/everyhop/broker.sock",
    adminSocket: join(dir, "data", "admin.sock"),
    brokerListen: null,
    brokers: ["spiffe://example.com/everyhop/sidecar"],
    workloadAttestors: { unix: {} },
    sds: {
      defaultSvidName: "default",
      defaultBundleName: "ROOTCA",
      defaultAllBundlesName: "ALL",
      disableSpiffeCertValidation: false,
    },
    authorizedDelegates: [],
    verifiers: {},
    metrics: null,
    health: null,
    logLevel: "info",
  });
});

test("the servers are one or a list", () => {
  const several = MINIMUM.replace("localhost:8081", "[a:8081, b:8081, 'a:8081']");
  assert.deepEqual(load(several).servers, ["a:8081", "b:8081"]);
});

test("the key of what is kept is apart from it", () => {
  assert.equal(load(`${MINIMUM}cacheKeyFile: /etc/everyhop/cache.key\n`).cacheKeyFile, "/etc/everyhop/cache.key");
  assert.throws(() => load(`${MINIMUM}cacheKeyFile: data/keys/cache.key\n`), /the key is in the folder whose files/);
});

test("the names that Envoy asks by can be others", () => {
  const { sds } = load(`${MINIMUM}sds: {defaultSvidName: mine, disableSpiffeCertValidation: true}\n`);
  assert.deepEqual(
    [sds.defaultSvidName, sds.defaultBundleName, sds.disableSpiffeCertValidation],
    ["mine", "ROOTCA", true],
  );
});

test("a token comes from the configuration or a file; a file that is not there (any more) is none", () => {
  assert.equal(readJoinToken(load(`${MINIMUM}joinToken: abc\n`)), "abc");
  const fromFile = load(`${MINIMUM}joinTokenFile: token\n`);
  assert.equal(readJoinToken(fromFile), null);
  writeFileSync(join(dir, "token"), "abc\n");
  assert.equal(readJoinToken(fromFile), "abc");
});

test("a data folder too deep for a socket has the admin socket beside the others", () => {
  const config = load(`${MINIMUM.replace("data\n", `${"d".repeat(120)}\n`)}socket: agent.sock\n`);
  assert.equal(config.adminSocket, join(dir, "agent-admin.sock"));
});

test("what is wrong is said with its place and a suggestion", () => {
  const table: readonly (readonly [string, RegExp, number])[] = [
    [`${MINIMUM}brokerSocet: x\n`, /unknown field `brokerSocet`.*|did you mean/, 5],
    [MINIMUM.replace("server: localhost:8081\n", ""), /`server` is missing/, 1],
    [MINIMUM.replace("localhost:8081", "localhost"), /is not `host:port`/, 2],
    [MINIMUM.replace("example.com", "Example.com"), /is not a trust domain/, 1],
    [`${MINIMUM}brokers: [not-an-id]\n`, /is not a SPIFFE ID/, 5],
    [`${MINIMUM}joinToken: "a b"\n`, /is not a join token/, 5],
    [`${MINIMUM}joinToken: a\njoinTokenFile: b\n`, /is given already/, 6],
    [`${MINIMUM}logLevel: loud\n`, /expected one of/, 5],
    [`${MINIMUM}socket: /${"x".repeat(120)}\n`, /too long for a socket/, 5],
    [`${MINIMUM}socket: [a\n`, /./, 5],
    [`${MINIMUM}workloadAttestors: {unix: {}, systemd: }\n`, /`systemd` has no value/, 5],
    [`${MINIMUM}workloadAttestors: {}\n`, /names no attestor/, 5],
    [`${MINIMUM}workloadAttestors: {dockre: {}}\n`, /unknown field `dockre`/, 5],
    [`${MINIMUM}workloadAttestors: {docker: {socket: docker.sock}}\n`, /not an absolute path/, 5],
    [`${MINIMUM}workloadAttestors: {docker: {rootlessPodmanSocket: /run/podman.sock}}\n`, /needs one `%d`/, 5],
    [`${MINIMUM}workloadAttestors: {k8s: {kubeletReadOnlyPort: 1, kubeletSecurePort: 2}}\n`, /is given already/, 5],
    [`${MINIMUM}workloadAttestors: {k8s: {certificateFile: /c}}\n`, /go together/, 5],
    [`${MINIMUM}workloadAttestors: {k8s: {tokenFile: token}}\n`, /not an absolute path/, 5],
    [`${MINIMUM}workloadAttestors: {unix: {workloadSizeLimit: -2}}\n`, /-2 is not between/, 5],
  ];
  for (const [text, message, line] of table) {
    assert.throws(
      () => load(text),
      (error: EveryhopError) => {
        assert.equal(error.code, "config-invalid");
        assert.match(error.issues[0]?.message ?? "", message);
        assert.ok(Math.abs((error.issues[0]?.line ?? 0) - line) <= 1, `${message} at line ${error.issues[0]?.line}`);
        return true;
      },
    );
  }
  assert.throws(() => load(""), /empty/);
  assert.throws(
    () => loadAgentConfig(join(dir, "nope.yaml")),
    (error: EveryhopError) => error.code === "file-missing",
  );
});

test("each workload attestor named is made, and the kubelet is found as SPIRE finds it", () => {
  const { workloadAttestors } = load(
    `${MINIMUM}workloadAttestors:\n  unix: {discoverWorkloadPath: false}\n  systemd: {}\n  docker: {socket: "unix:///d.sock"}\n  containerd: {}\n  k8s: {}\n`,
  );
  assert.equal(workloadAttestors.docker?.socket, "/d.sock");
  const kinds = makeWorkloadAttestors(workloadAttestors).map(({ kind }) => kind);
  assert.deepEqual(kinds, ["unix", "systemd", "docker", "containerd", "k8s"]);
  const account = "/var/run/secrets/kubernetes.io/serviceaccount";
  const found = kubeletOptions({}, { MY_NODE_NAME: "node-1" });
  assert.deepEqual([found.host, found.port, found.serverName, found.secure], ["node-1", 10_250, null, true]);
  assert.deepEqual([found.caFile, found.tokenFile], [`${account}/ca.crt`, `${account}/token`]);
  const here = kubeletOptions({ kubeletReadOnlyPort: 10_255, nodeNameEnv: "NODE" }, { MY_NODE_NAME: "node-1" });
  assert.deepEqual([here.host, here.port, here.secure], ["127.0.0.1", 10_255, false]);
  const certified = kubeletOptions({ certificateFile: "/c", privateKeyFile: "/k", skipKubeletVerification: true }, {});
  assert.deepEqual([certified.tokenFile, certified.caFile], [null, null]);
  assert.deepEqual(certified.client, { certFile: "/c", keyFile: "/k" });
  assert.equal(kubeletOptions({ useAnonymousAuthentication: true }, {}).tokenFile, null);
});

test("brokers name Kubernetes objects where the configuration says who, and where the API is", () => {
  const broker = "broker: {accessPolicy: enforced, brokers: [{id: 'spiffe://example.com/ztunnel'}]}";
  const of = (k8s: string) => load(`${MINIMUM}workloadAttestors:\n  k8s: {${k8s}}\n`).workloadAttestors;
  assert.equal(makeKubeObjects(of(""), {}), null);
  assert.throws(() => makeKubeObjects(of(broker), {}), /needs the Kubernetes API/);
  const inPod = { KUBERNETES_SERVICE_HOST: "10.0.0.1", KUBERNETES_SERVICE_PORT: "443" };
  assert.notEqual(makeKubeObjects(of(broker), inPod)?.kube, null);
  const named = `apiServer: {address: "localhost:6443", caFile: /ca, tokenFile: /token}, ${broker}`;
  assert.notEqual(makeKubeObjects(of(named), {})?.kube, null);
  assert.equal(makeKubeObjects(of(broker.replace("enforced", "permissive")), {})?.kube, null);
  assert.throws(() => of("broker: {brokers: [{id: 'spiffe://example.com/ztunnel'}]}"), /`accessPolicy` is missing/);
});
