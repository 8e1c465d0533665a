import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DEFAULT_MESH_CONFIG } from "../mesh-config.ts";
import { parseResources } from "../parse.ts";
import type { MeshWorkload } from "./finding.ts";
import { findingIssue, findingsOf } from "./findings.ts";

const authz = (name: string, spec: string, namespace = "prod"): string =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: ${spec}\n`;
const peer = (spec: string, namespace = "istio-system"): string =>
  `apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: peer, namespace: ${namespace}}\nspec: ${spec}\n`;

const STRICT = peer("{mtls: {mode: STRICT}}");
const TOKENS =
  "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: j, namespace: prod}\nspec: {jwtRules: [{issuer: i, jwks: '{\"keys\":[]}'}]}\n";
const DENY_ALL = authz("root", "{}", "istio-system");

const shop: MeshWorkload = {
  name: "shop",
  namespace: "prod",
  labels: { app: "shop" },
  port: 8080,
  protocol: "http",
  principal: "td/ns/prod/sa/shop",
};
const db: MeshWorkload = { name: "db", namespace: "prod", labels: { app: "db" }, port: 5432, protocol: "tcp" };

interface Row {
  readonly name: string;
  readonly text: readonly string[];
  readonly workloads?: readonly MeshWorkload[];
  /** `code path`, in order; the standing `no-default-deny` is kept away by a policy without rules in the root namespace. */
  readonly found: readonly string[];
}

const rows: readonly Row[] = [
  {
    name: "ALLOW-all",
    text: [authz("p", "{rules: [{}]}")],
    found: ["allow-all spec.rules[0]"],
  },
  {
    name: "a selector that selects nothing",
    text: [authz("p", "{selector: {matchLabels: {app: shopp}}}")],
    workloads: [shop],
    found: ["selects-nothing spec.selector"],
  },
  {
    name: "a duplicate, in another policy",
    text: [
      STRICT,
      authz("a", "{rules: [{from: [{source: {principals: [td/x]}}]}]}"),
      authz("b", "{rules: [{from: [{source: {principals: [td/x]}}]}]}"),
    ],
    found: ["duplicate-rule spec.rules[0]"],
  },
  {
    name: "an ALLOW rule whose conditions another rule bypasses",
    text: [
      STRICT,
      authz(
        "p",
        "{rules: [{from: [{source: {principals: [td/x]}}], when: [{key: source.ip, values: [10.0.0.1]}]}, {from: [{source: {principals: ['*']}}]}]}",
      ),
    ],
    found: ["bypassed-rule spec.rules[0]"],
  },
  {
    name: "an ALLOW rule that a DENY rule shuts",
    text: [
      STRICT,
      authz("d", "{action: DENY, rules: [{from: [{source: {principals: [td/*]}}]}]}"),
      authz("p", "{rules: [{from: [{source: {principals: [td/x]}}]}]}"),
    ],
    found: ["shut-by-deny spec.rules[0]"],
  },
  {
    name: "a rule that contradicts itself",
    text: [STRICT, authz("p", "{rules: [{from: [{source: {principals: [td/x], notPrincipals: ['td/*']}}]}]}")],
    found: ["never-matches spec.rules[0].from[0].source"],
  },
  {
    name: "values that nothing has",
    text: [
      STRICT,
      authz(
        "p",
        "{rules: [{from: [{source: {principals: [web, 'spiffe://td/x']}}], to: [{operation: {paths: [a, /b?c, /d/../e], methods: [get], ports: ['0'], hosts: ['https://shop']}}]}]}",
      ),
    ],
    workloads: [{ ...shop, port: 0 }],
    found: [
      "value-never-matches spec.rules[0].from[0].source.principals[0]",
      "value-never-matches spec.rules[0].from[0].source.principals[1]",
      "value-never-matches spec.rules[0].to[0].operation.paths[0]",
      "value-never-matches spec.rules[0].to[0].operation.paths[1]",
      "value-never-matches spec.rules[0].to[0].operation.paths[2]",
      "value-never-matches spec.rules[0].to[0].operation.methods[0]",
      "value-never-matches spec.rules[0].to[0].operation.ports[0]",
      "value-never-matches spec.rules[0].to[0].operation.hosts[0]",
      "host-without-port spec.rules[0].to[0].operation.hosts[0]",
    ],
  },
  {
    name: "a negation that plaintext satisfies",
    text: [authz("p", "{rules: [{from: [{source: {notPrincipals: [td/x]}}]}]}")],
    found: ["plaintext-matches spec.rules[0]"],
  },
  {
    name: "a DENY rule that plaintext evades",
    text: [authz("d", "{action: DENY, rules: [{from: [{source: {namespaces: [dev]}}]}]}")],
    found: ["plaintext-evades spec.rules[0]"],
  },
  {
    name: "the same where STRICT or a DENY rule requires an identity: nothing",
    text: [
      peer("{selector: {matchLabels: {app: shop}}, mtls: {mode: STRICT}}", "prod"),
      authz(
        "d",
        "{selector: {matchLabels: {app: shop}}, action: DENY, rules: [{from: [{source: {namespaces: [dev]}}]}]}",
      ),
      authz("a", "{rules: [{from: [{source: {notPrincipals: ['*']}}]}], action: DENY}", "data"),
      authz("b", "{rules: [{from: [{source: {notPrincipals: [td/x]}}]}]}", "data"),
    ],
    found: [],
  },
  {
    name: "a negation that a request without a token satisfies",
    text: [TOKENS, authz("p", "{rules: [{when: [{key: 'request.auth.claims[group]', notValues: [guest]}]}]}")],
    workloads: [shop],
    found: ["tokenless-matches spec.rules[0]"],
  },
  {
    name: "rules on tokens where none is validated",
    text: [STRICT, authz("p", "{rules: [{from: [{source: {requestPrincipals: [i/a]}}]}]}")],
    workloads: [shop],
    found: ["no-token-validated spec.rules[0]"],
  },
  {
    name: "HTTP fields at a TCP workload",
    text: [
      STRICT,
      authz("a", "{selector: {matchLabels: {app: db}}, rules: [{to: [{operation: {methods: [GET]}}]}]}"),
      authz("d", "{selector: {matchLabels: {app: db}}, action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}"),
      authz("s", "{selector: {matchLabels: {app: shop}}, action: DENY, rules: [{to: [{operation: {paths: [/y]}}]}]}"),
    ],
    workloads: [shop, db],
    found: ["tcp-rule-dropped spec.rules[0]", "tcp-everything spec.rules[0]"],
  },
  {
    name: "a port that no selected workload has",
    text: [
      STRICT,
      authz("p", "{selector: {matchLabels: {app: shop}}, rules: [{to: [{operation: {ports: ['8080', '80']}}]}]}"),
    ],
    workloads: [shop, db],
    found: ["port-of-nobody spec.rules[0].to[0].operation.ports[1]"],
  },
  {
    name: "a host without its port, where that lets a request by",
    text: [
      STRICT,
      authz(
        "d",
        "{action: DENY, rules: [{to: [{operation: {hosts: [a.example, b.example, 'b.example:*'], ports: ['8080']}}]}]}",
      ),
    ],
    workloads: [shop],
    found: ["host-without-port spec.rules[0].to[0].operation.hosts[0]"],
  },
  {
    name: "principals of nobody here",
    text: [
      STRICT,
      authz(
        "p",
        "{rules: [{from: [{source: {principals: [cluster.local/ns/prod/sa/shpo, cluster.local/ns/prod/*, td/ns/prod/sa/shop]}}]}]}",
      ),
    ],
    workloads: [shop],
    found: [
      "unknown-principal spec.rules[0].from[0].source.principals[0]",
      "value-never-matches spec.rules[0].from[0].source.principals[1]",
    ],
  },
  {
    name: "a bare service account in the root namespace",
    text: [STRICT, authz("p", "{rules: [{from: [{source: {serviceAccounts: [shop, prod/shop]}}]}]}", "istio-system")],
    found: ["account-of-root-namespace spec.rules[0].from[0].source.serviceAccounts[0]"],
  },
  {
    name: "conditions on what is never there",
    text: [
      STRICT,
      authz(
        "p",
        "{rules: [{when: [{key: 'experimental.envoy.filters.x[y]', values: [a]}, {key: 'request.headersx[y]', values: [a]}, {key: 'request.headers[connection]', values: [a]}]}]}",
      ),
    ],
    workloads: [shop],
    found: [
      "attribute-absent spec.rules[0].when[0].key",
      "key-misread spec.rules[0].when[1].key",
      "attribute-absent spec.rules[0].when[2].key",
    ],
  },
];

for (const { name, text, workloads, found } of rows) {
  test(`lint: ${name}`, () => {
    const { resources, issues, locate } = parseResources([{ file: "p.yaml", text: [DENY_ALL, ...text].join("---\n") }]);
    assert.deepEqual(issues, []);
    const options = { meshConfig: DEFAULT_MESH_CONFIG, trustDomain: "td", ...(workloads ? { workloads } : {}) };
    const given = findingsOf(resources, options).map((finding) => findingIssue(finding, locate));
    assert.deepEqual(
      given
        .filter(({ severity }) => severity !== "info" || found.length > 0)
        .map(({ code, path }) => `${code} ${path}`),
      found,
      JSON.stringify(given),
    );
    for (const issue of given) {
      assert.ok(issue.line! > 0 && issue.column! > 0 && issue.message !== "", JSON.stringify(issue));
    }
  });
}

test("lint: a namespace without default deny", () => {
  const { resources } = parseResources([
    { file: "p.yaml", text: `${STRICT}---\n${authz("p", "{selector: {matchLabels: {app: a}}}")}` },
  ]);
  const found = findingsOf(resources, { meshConfig: DEFAULT_MESH_CONFIG });
  assert.deepEqual(
    found.map(({ code }) => code),
    ["no-default-deny"],
  );
});

test("lint: the example's policies have nothing that is not true", () => {
  const folder = join(import.meta.dirname, "../../../../examples/payments/policies");
  const files = ["authz-database-access", "authz-payment-service", "istio-peer-authentication", "mesh"].map((name) => ({
    file: name,
    text: readFileSync(join(folder, `${name}.yaml`), "utf8"),
  }));
  const { resources } = parseResources(files);
  const app = (name: string, namespace: string, port: number, protocol: "http" | "tcp" = "http"): MeshWorkload => ({
    ...{ name, namespace, labels: { app: name }, port, protocol },
    principal: `example.com/ns/${namespace}/sa/${name}`,
  });
  const workloads = [
    app("api-gateway", "production", 8080),
    app("payment-service", "production", 8080),
    app("user-service", "production", 8080),
    app("postgres-proxy", "data", 5432, "tcp"),
    app("printer", "office", 9100),
  ];
  const options = { meshConfig: DEFAULT_MESH_CONFIG, trustDomain: "example.com", workloads };
  assert.deepEqual(findingsOf(resources, options), []);
});
