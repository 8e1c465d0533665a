import assert from "node:assert/strict";
import { test } from "node:test";
import { compile } from "./compile.ts";
import { decideHttp } from "./evaluate.ts";
import { type HttpFacts, type PeerFacts, peerOf } from "./facts.ts";
import { DEFAULT_MESH_CONFIG } from "./mesh-config.ts";
import { parseResources } from "./parse.ts";

const WORKLOAD = { namespace: "prod", labels: {} };
const MESH = { trustDomain: "cluster.local", meshConfig: DEFAULT_MESH_CONFIG };

function compiledFrom(...rules: readonly object[]) {
  const metadata = { name: "p", namespace: "prod" };
  const document = {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata,
    spec: { action: "ALLOW", rules },
  };
  const { resources, issues } = parseResources([{ file: "p.yaml", text: JSON.stringify(document) }]);
  assert.deepEqual(issues, []);
  return compile(resources, WORKLOAD, MESH);
}

const caller = (name: string): PeerFacts => ({
  principal: `cluster.local/ns/prod/sa/${name}`,
  sourceIp: "10.0.0.5",
  remoteIp: "10.0.0.5",
  destinationIp: "10.0.0.9",
  destinationPort: 8080,
  sni: null,
});

const get = (path: string, more: Partial<HttpFacts> = {}): HttpFacts => ({
  method: "GET",
  path,
  host: "payments",
  header: () => null,
  auth: null,
  ...more,
});

const principals = (name: string) => ({ source: { principals: [`cluster.local/ns/prod/sa/${name}`] } });
const paths = (...values: readonly string[]) => [{ operation: { paths: values } }];
const alice = { iss: "https://i.example", sub: "alice" };

/** One connection, several requests: what the connection decides is kept, what requests bring is not. */
const CONNECTIONS = [
  {
    name: "several sources, all of the connection",
    rules: [{ from: [principals("web"), principals("shop")], to: paths("/a", "/b/*") }],
    from: "shop",
    requests: [
      [get("/b/x"), "allow"],
      [get("/c"), "deny"],
      [get("/a"), "allow"],
    ],
  },
  {
    name: "a source of the connection or one of the request",
    rules: [{ from: [principals("web"), { source: { requestPrincipals: ["https://i.example/alice"] } }] }],
    from: "shop",
    requests: [
      [get("/"), "deny"],
      [get("/", { auth: alice }), "allow"],
      [get("/"), "deny"],
    ],
  },
  {
    name: "the same, where the connection's matches and no request brings the other",
    rules: [{ from: [principals("web"), { source: { requestPrincipals: ["https://i.example/alice"] } }] }],
    from: "web",
    requests: [
      [get("/"), "allow"],
      [get("/", { auth: alice }), "allow"],
    ],
  },
  {
    name: "a source whose address each request tells",
    rules: [{ from: [principals("web"), { source: { remoteIpBlocks: ["192.0.2.0/24"] } }] }],
    from: "shop",
    requests: [
      [get("/"), "deny"],
      [get("/", { remoteIp: "192.0.2.7" }), "allow"],
      [get("/", { remoteIp: "198.51.100.7" }), "deny"],
    ],
  },
  {
    name: "operations of the connection, and a condition of the request",
    rules: [
      {
        to: [{ operation: { ports: ["8080"] } }, { operation: { ports: ["9090"] } }],
        when: [{ key: "request.headers[x-v]", values: ["1"] }],
      },
    ],
    from: "web",
    requests: [
      [get("/"), "deny"],
      [get("/", { header: () => ["1"] }), "allow"],
    ],
  },
] as const;

for (const { name, rules, from, requests } of CONNECTIONS) {
  test(`one connection: ${name}`, () => {
    // Few rules are walked, many are looked up.
    const others = Array.from({ length: 9 }, (_, index) => ({ from: [principals(`other-${index}`)] }));
    for (const compiled of [compiledFrom(...rules), compiledFrom(...rules, ...others)]) {
      const facts = caller(from);
      for (const [request, wanted] of requests) {
        assert.equal(decideHttp(compiled, facts, request).decision, wanted);
        assert.equal(decideHttp(compiled, peerOf(facts), request).decision, wanted);
      }
    }
  });
}

test("a peer that other policies decide about forgets what the first left open", () => {
  const [web, shop] = [compiledFrom({ from: [principals("web")] }), compiledFrom({ from: [principals("shop")] })];
  const peer = peerOf(caller("web"));
  const answers = [web, shop, web].map((compiled) => decideHttp(compiled, peer, get("/")).decision);
  assert.deepEqual(answers, ["allow", "deny", "allow"]);
});
