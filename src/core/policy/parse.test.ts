import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { conformanceFolder, withoutConformance } from "../../../test/conformance.ts";
import { parseResourceJson, parseResources, resourceToJson } from "./parse.ts";

const parse = (text: string) => parseResources([{ file: "p.yaml", text }]);

function policy(spec: string, metadata = "name: p"): string {
  return `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {${metadata}}\nspec: ${spec}\n`;
}

const source = (fields: string): string => policy(`{rules: [{from: [{source: {${fields}}}]}]}`);
const operation = (fields: string): string => policy(`{rules: [{to: [{operation: {${fields}}}]}]}`);
const condition = (fields: string): string => policy(`{rules: [{when: [{${fields}}]}]}`);
const peer = (spec: string): string => policy(spec).replace("AuthorizationPolicy", "PeerAuthentication");

/** One document each, with Istio's message in `_err` taken out. */
function documents(name: string): { text: string; wanted: string | undefined }[] {
  const text = readFileSync(join(conformanceFolder() ?? "", "istio", name), "utf8");
  return text
    .split(/^---$/m)
    .filter((document) => document.includes("kind:"))
    .map((document) => ({ text: document.replace(/^_err:.*$/m, ""), wanted: /^_err: (.*)$/m.exec(document)?.[1] }));
}

/** Path of the field at fault, per document. */
const FAULTS: Readonly<Record<string, readonly string[]>> = {
  "authz-invalid.yaml": ["spec.rules[0].from[0].source", "spec.rules[0].from[0].source"],
  "peerauth-invalid.yaml": [
    "spec.mtls.mode",
    "spec.portLevelMtls.acd",
    "spec.portLevelMtls",
    "spec.portLevelMtls",
    'spec.portLevelMtls["0"]',
    'spec.portLevelMtls["42949672"]',
  ],
  "reqauth-invalid.yaml": [
    "spec",
    "spec",
    "spec.targetRef.name",
    "spec.targetRef.namespace",
    "spec.targetRef.group",
    "spec.targetRef.kind",
    "spec.jwtRules[0]",
    "spec.jwtRules[0].audiences[0]",
    "spec.jwtRules[0].jwksUri",
    "spec.jwtRules[0].fromHeaders[0].name",
    "spec.jwtRules[0].fromHeaders[0].name",
    "spec.jwtRules[0].fromParams[0]",
    "spec.jwtRules[0].fromCookies[0]",
    "spec.jwtRules[0].outputClaimToHeaders[0]",
    "spec.jwtRules[0].outputClaimToHeaders[0].claim",
    "spec.jwtRules[0].outputClaimToHeaders[0].header",
    "spec.jwtRules[0].outputClaimToHeaders[0].header",
    "spec.jwtRules[0].timeout",
    "spec.jwtRules[0].spaceDelimitedClaims[0]",
    "spec.jwtRules[0].presence",
  ],
};

for (const [name, paths] of Object.entries(FAULTS)) {
  test(`${name}: refused at the right field`, { skip: withoutConformance() }, () => {
    const given = documents(name);
    assert.equal(given.length, paths.length);
    for (const [index, { text, wanted }] of given.entries()) {
      const { resources, issues } = parse(text);
      assert.deepEqual(resources, [], wanted);
      assert.ok(
        issues.some((issue) => issue.code === "resource-invalid" && issue.path === paths[index]),
        `${wanted}: ${JSON.stringify(issues)}`,
      );
      assert.ok(issues.every((issue) => issue.file === "p.yaml" && (issue.line ?? 0) > 0));
    }
  });
}

test("Istio's valid resources are accepted, and survive their JSON form", { skip: withoutConformance() }, () => {
  for (const name of ["authz-valid.yaml", "peerauth-valid.yaml", "reqauth-valid.yaml"]) {
    for (const { text } of documents(name)) {
      const { resources, issues } = parse(text);
      assert.deepEqual(
        issues.filter((issue) => issue.severity === "error"),
        [],
      );
      assert.equal(resources.length, 1);
      const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
      assert.deepEqual(plain(parseResourceJson(resourceToJson(resources[0]!))), plain(resources[0]));
    }
  }
});

test("the first user's files are accepted as they are", { skip: withoutConformance() }, () => {
  const files = ["authz-payment-service.yaml", "authz-database-access.yaml", "istio-peer-authentication.yaml"];
  const { resources, issues } = parseResources(
    files.map((file) => ({ file, text: readFileSync(join(conformanceFolder() ?? "", "configs", file), "utf8") })),
  );
  assert.deepEqual(issues, []);
  assert.deepEqual(
    resources.map(({ namespace, name, place }) => [namespace, name, place.file, place.line]),
    [
      ["production", "payment-service-access", "authz-payment-service.yaml", 3],
      ["production", "payment-service-deny-all", "authz-payment-service.yaml", 24],
      ["data", "database-access", "authz-database-access.yaml", 3],
      ["istio-system", "default", "istio-peer-authentication.yaml", 3],
    ],
  );
});

/** What Istio's admission lets through, perhaps against expectation. */
const ACCEPTED: Readonly<Record<string, string>> = {
  "from: []": policy("{rules: [{from: []}]}"),
  "to: []": policy("{rules: [{to: []}]}"),
  "from: null": policy("{rules: [{from: null}]}"),
  "a null rule": policy("{action: DENY, rules: [null]}"),
  "an action by number": policy("{action: 1, rules: [{}]}"),
  "ports with leading zeros": operation('ports: ["080", "0"]'),
  "host bits": source("ipBlocks: [10.0.0.1/8]"),
  "a zone": source('ipBlocks: ["fe80::1%eth0"]'),
  "a mapped address": source('ipBlocks: ["::ffff:10.0.0.1"]'),
  "a path without slash": operation("paths: [a]"),
  "a path with a query": operation('paths: ["/a?b=c"]'),
  "{**} in the middle": operation('paths: ["/a/{**}/b"]'),
  "a principal with spiffe://": source("principals: [spiffe://a/ns/b/sa/c]"),
  "stars inside a principal": source("principals: [a/*/b]"),
  "a space in a service account": source('serviceAccounts: ["a b"]'),
  "serviceAccounts beside trustDomains": source("serviceAccounts: [a], trustDomains: [b]"),
  "a slash in source.trustDomain": condition("key: source.trustDomain, values: [a/b]"),
  "a key that is nearly a header": condition('key: "request.headersx[y]", values: [a]'),
  "spaces in a header key": condition('key: "request.headers[ x ]", values: [a]'),
  "nested brackets in a header key": condition('key: "request.headers[a][b]", values: [a]'),
  "a pseudo header": condition('key: "request.headers[:path]", values: [a]'),
  "dynamic metadata": condition('key: "experimental.envoy.filters.a.b[c]", values: [a]'),
  "AUDIT without rules": policy("{action: AUDIT}"),
  "an empty list beside another": operation("methods: [GET], paths: []"),
  "a selector in the root namespace": peer("{selector: {matchLabels: {a: b}}}").replace(
    "name: p",
    "name: p, namespace: istio-system",
  ),
  v1beta1: policy("{}").replace("/v1", "/v1beta1"),
};

for (const [name, text] of Object.entries(ACCEPTED)) {
  test(`accepted: ${name}`, () => {
    const { resources, issues } = parse(text);
    assert.deepEqual(
      issues.filter((issue) => issue.severity === "error"),
      [],
    );
    assert.equal(resources.length, 1);
  });
}

/** Refused, with the path of the field at fault. */
const REFUSED: Readonly<Record<string, readonly [string, string]>> = {
  "DENY without rules": [policy("{action: DENY}"), "spec"],
  "DENY with an empty list": [policy("{action: DENY, rules: []}"), "spec"],
  "an action in lower case": [policy("{action: deny, rules: [{}]}"), "spec.action"],
  "an unquoted port": [operation("ports: [80]"), "spec.rules[0].to[0].operation.ports[0]"],
  "a port with a sign": [operation('ports: ["+80"]'), "spec.rules[0].to[0].operation.ports[0]"],
  "a port too high": [operation('ports: ["65536"]'), "spec.rules[0].to[0].operation.ports[0]"],
  "leading zeros in an address": [source("ipBlocks: [10.0.0.01]"), "spec.rules[0].from[0].source.ipBlocks[0]"],
  "leading zeros in a length": [source("ipBlocks: [10.0.0.0/08]"), "spec.rules[0].from[0].source.ipBlocks[0]"],
  "a zone in a block": [source('ipBlocks: ["fe80::1%eth0/64"]'), "spec.rules[0].from[0].source.ipBlocks[0]"],
  "a template beside a star": [operation('paths: ["/{*}/b*"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "a star behind a template": [operation('paths: ["/a/{*}*"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "an empty segment in a template": [operation('paths: ["/a//{*}"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "a segment partly a template": [operation('paths: ["/a{*}"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "an extension behind a template": [operation('notPaths: ["/{*}.css"]'), "spec.rules[0].to[0].operation.notPaths[0]"],
  "a lone brace": [operation('paths: ["/a{"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "an operator behind {**}": [operation('paths: ["/{**}/{*}"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "a template Envoy aborts on": [operation('paths: ["{*}"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "a template without a slash": [operation('paths: ["a/{*}"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "a template with two slashes": [operation('paths: ["//{*}"]'), "spec.rules[0].to[0].operation.paths[0]"],
  "17 service accounts": [
    source(`serviceAccounts: [${Array.from({ length: 17 }, (_, index) => `a${index}`)}]`),
    "spec.rules[0].from[0].source.serviceAccounts",
  ],
  "a wildcard service account": [source('serviceAccounts: ["a/*"]'), "spec.rules[0].from[0].source.serviceAccounts[0]"],
  "a slash in a trust domain": [source("trustDomains: [a/b]"), "spec.rules[0].from[0].source.trustDomains[0]"],
  "a wildcard inside a trust domain": [
    source("notTrustDomains: [a*b]"),
    "spec.rules[0].from[0].source.notTrustDomains[0]",
  ],
  "an empty value": [source('principals: [""]'), "spec.rules[0].from[0].source.principals[0]"],
  "an empty source": [source(""), "spec.rules[0].from[0].source"],
  "a missing operation": [policy("{rules: [{to: [{}]}]}"), "spec.rules[0].to[0]"],
  "an unknown field": [operation("pathes: [/a]"), "spec.rules[0].to[0].operation.pathes"],
  "an unknown key": [condition("key: source.ipp, values: [10.0.0.1]"), "spec.rules[0].when[0].key"],
  "a removed key": [condition("key: destination.namespace, values: [a]"), "spec.rules[0].when[0].key"],
  "a condition without values": [condition("key: source.ip"), "spec.rules[0].when[0]"],
  "a header key without name": [condition('key: "request.headers[]", values: [a]'), "spec.rules[0].when[0].key"],
  "an empty claim name": [condition('key: "request.auth.claims[a][]", values: [a]'), "spec.rules[0].when[0].key"],
  "a dry run of no boolean": [
    policy("{}", 'name: p, annotations: {istio.io/dry-run: "yes"}'),
    'metadata.annotations["istio.io/dry-run"]',
  ],
  "a dry run of AUDIT": [
    policy("{action: AUDIT}", 'name: p, annotations: {istio.io/dry-run: "true"}'),
    'metadata.annotations["istio.io/dry-run"]',
  ],
  "CUSTOM without provider": [policy("{action: CUSTOM, rules: [{}]}"), "spec.provider"],
  "CUSTOM with a principal": [
    policy("{action: CUSTOM, provider: {name: x}, rules: [{from: [{source: {principals: [a]}}]}]}"),
    "spec.rules[0].from[0].source.principals",
  ],
  "a provider without CUSTOM": [policy("{provider: {name: x}}"), "spec.provider"],
  "a wildcard in a selector": [policy("{selector: {matchLabels: {app: a*}}}"), "spec.selector.matchLabels.app"],
  "portLevelMtls without selector": [peer("{portLevelMtls: {80: {mode: STRICT}}}"), "spec.portLevelMtls"],
  "an unknown kind": ["apiVersion: security.istio.io/v1\nkind: AuthorisationPolicy\n", "kind"],
  "an unknown version": [policy("{}").replace("/v1", "/v2"), "apiVersion"],
  "no name": [policy("{}", "namespace: a"), "metadata.name"],
};

for (const [name, [text, path]] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, () => {
    const { resources, issues } = parse(text);
    const errors = issues.filter((issue) => issue.severity === "error");
    assert.deepEqual(resources, []);
    assert.deepEqual([...new Set(errors.map((issue) => issue.path))], [path], JSON.stringify(errors));
    assert.ok(errors.every((issue) => issue.line !== undefined && issue.column !== undefined));
  });
}

test("a typo gets a suggestion, at its own line", () => {
  const { issues } = parse(
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  ruels: []\n",
  );
  assert.deepEqual([issues[0]?.line, issues[0]?.column, issues[0]?.hint], [5, 3, "did you mean `rules`?"]);
});

test("the same resource twice is an error that names both places", () => {
  const { resources, issues } = parseResources([
    { file: "a.yaml", text: policy("{}") },
    { file: "b.yaml", text: `# moved\n${policy("{}", "name: p, namespace: default")}` },
  ]);
  assert.equal(resources.length, 1);
  assert.equal(issues[0]?.code, "resource-duplicate");
  assert.match(issues[0]?.message ?? "", /a\.yaml:1/);
  assert.deepEqual([issues[0]?.file, issues[0]?.line], ["b.yaml", 2]);
});

test("documents of PolicyTest are left to `policy test`", () => {
  const { resources, issues } = parse("apiVersion: everyhop.dev/v1\nkind: PolicyTest\nmetadata: {name: t}\n");
  assert.deepEqual([resources, issues], [[], []]);
});

test("a resource from elsewhere is checked as strictly", () => {
  assert.throws(() => parseResourceJson("{"), { code: "config-invalid" });
  assert.throws(
    () => parseResourceJson('{"resource":{"apiVersion":"security.istio.io/v1","kind":"X"}}'),
    /unknown kind/,
  );
  const bad = {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: "p" },
    spec: { x: 1 },
  };
  assert.throws(() => parseResourceJson(JSON.stringify({ order: 0, resource: bad })), /unknown field `x`/);
});
