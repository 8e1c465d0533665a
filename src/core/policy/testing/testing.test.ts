import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Decider } from "../decide.ts";
import { readDecisionRequest } from "../decision-request.ts";
import { DEFAULT_MESH_CONFIG } from "../mesh-config.ts";
import { parseResources } from "../parse.ts";
import { coverageOf } from "./coverage.ts";
import { junit } from "./junit.ts";
import { mutantsOf } from "./mutants.ts";
import { type MutationReport, mutate } from "./mutation.ts";
import { parsePolicyTests } from "./policy-test.ts";
import { runSuite, type Suite } from "./run.ts";
import { tap } from "./tap.ts";

const POLICY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: pay, namespace: prod}
spec:
  rules:
  - from:
    - source: {principals: [td/ns/prod/sa/web, td/ns/prod/sa/batch]}
    to:
    - operation: {methods: [POST]}
`;

const testText = (cases: string): string => `
apiVersion: everyhop.dev/v1
kind: PolicyTest
metadata: {name: pay}
tests:
${cases}`;

const one = (principal: string, method: string, expect: string): string =>
  `- {name: "${principal} ${method}", request: {source: {principal: ${principal}}, destination: {namespace: prod}, ` +
  `request: {method: ${method}, path: /}}, expect: ${expect}}\n`;

const WEB = "td/ns/prod/sa/web";
const options = { now: () => 0 };

function suiteOf(policies: string, cases: string): Suite {
  const { resources, issues, locate } = parseResources([{ file: "p.yaml", text: policies }]);
  assert.deepEqual(issues, []);
  const tests = parsePolicyTests([{ file: "t.yaml", text: testText(cases) }]);
  assert.deepEqual(tests.issues, []);
  return { tests: tests.tests, resources, mesh: { trustDomain: "td", meshConfig: DEFAULT_MESH_CONFIG }, locate };
}

function mutation(policies: string, cases: string): MutationReport {
  const suite = suiteOf(policies, cases);
  const run = { suite, results: runSuite(suite, options) };
  return mutate([run], { ...options, isOver: () => false, progress: () => {} });
}

const changes = (report: MutationReport, ...states: readonly string[]): string[] =>
  report.mutants.filter(({ state }) => states.includes(state)).map(({ change }) => change);

const faults: readonly (readonly [name: string, text: string, message: RegExp, path: string])[] = [
  [
    "a field misspelt",
    testText("- {request: {destinaton: {}}, expect: allow}"),
    /unknown field `destinaton`/,
    "tests[0].request.destinaton",
  ],
  [
    "a decision misspelt",
    testText("- {request: {destination: {}}, expect: alow}"),
    /expected one of allow, deny/,
    "tests[0].expect",
  ],
  [
    "nothing expected",
    testText("- {request: {destination: {}}, expect: {}}"),
    /nothing is expected/,
    "tests[0].expect",
  ],
  ["no tests", testText("  []"), /at least 1/, "tests"],
  [
    "a SPIFFE ID as principal",
    testText("- {request: {source: {principal: spiffe://td/a}, destination: {}}, expect: deny}"),
    /without `spiffe:\/\/`/,
    "tests[0].request.source.principal",
  ],
  [
    "a policy without namespace",
    testText("- {request: {destination: {}}, expect: {policy: pay}}"),
    /namespace\/name/,
    "tests[0].expect.policy",
  ],
  [
    "a header that is no text",
    testText("- {request: {destination: {}, request: {headers: {x: 1}}}, expect: deny}"),
    /expected text/,
    "tests[0].request.request.headers.x",
  ],
  [
    "another version",
    testText("- {request: {destination: {}}, expect: deny}").replace("/v1", "/v2"),
    /expected one of everyhop.dev\/v1/,
    "apiVersion",
  ],
];
for (const [name, text, message, path] of faults) {
  test(`a PolicyTest with ${name} is refused at its place`, () => {
    const { issues } = parsePolicyTests([{ file: "t.yaml", text }]);
    assert.equal(issues.length, 1, JSON.stringify(issues));
    assert.match(issues[0]!.message, message);
    assert.equal(issues[0]!.path, path);
    assert.ok(issues[0]!.line! > 0 && issues[0]!.column! > 0 && issues[0]!.file === "t.yaml");
  });
}

test("a case that fails says what differed and what would have let it in", () => {
  const suite = suiteOf(POLICY, one(WEB, "PUT", "allow") + one(WEB, "POST", "{policy: null, dryRun: deny}"));
  const [put, post] = runSuite(suite, options);
  assert.deepEqual(put?.differences, [{ field: "decision", expected: "allow", actual: "deny" }]);
  assert.match(put?.answer.nearestMiss?.would ?? "", /`methods` included `PUT`/);
  assert.deepEqual(
    post?.differences.map(({ field, actual }) => [field, actual]),
    [
      ["policy", "prod/pay"],
      ["dryRun.decision", "allow"],
    ],
  );
});

test("coverage counts what matched, per rule, field and value", () => {
  const suite = suiteOf(POLICY, one(WEB, "POST", "allow") + one(WEB, "GET", "deny"));
  const { rules, fields, values, byRule } = coverageOf([{ suite, results: runSuite(suite, options) }], options);
  assert.deepEqual([rules.covered, rules.total], [1, 1]);
  assert.deepEqual([fields.covered, fields.total], [2, 2]);
  assert.deepEqual([values.covered, values.total, values.percent], [2, 3, 66.6]);
  const [rule] = byRule;
  assert.deepEqual([rule?.matched, rule?.decided, rule?.file, rule?.line], [1, 1, "p.yaml", 7]);
  assert.deepEqual(
    rule?.fields.map(({ field, held, failed }) => [field, held, failed]),
    [
      ["principals", 2, 0],
      ["methods", 1, 1],
    ],
  );
});

test("a request refused before any policy covers no rule", () => {
  const strict = `${POLICY}---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: d, namespace: prod}\nspec: {mtls: {mode: STRICT}}\n`;
  const plaintext = "- {request: {destination: {namespace: prod}, request: {method: POST, path: /}}, expect: deny}\n";
  const suite = suiteOf(strict, plaintext);
  assert.equal(coverageOf([{ suite, results: runSuite(suite, options) }], options).rules.covered, 0);
});

test("tests that only allow notice no widening; with one denial per field they notice all", () => {
  const weak = mutation(POLICY, one(WEB, "POST", "allow"));
  assert.deepEqual(changes(weak, "survived"), [
    "`principals` is gone",
    "`principals` becomes `*`",
    "`methods` is gone",
    "`methods` becomes `*`",
  ]);
  const strong = mutation(POLICY, one(WEB, "POST", "allow") + one(WEB, "GET", "deny") + one("td/x", "POST", "deny"));
  assert.deepEqual([strong.score, strong.survived, strong.total], [100, 0, 8]);
});

test("a mutant that changes no decision is told apart, with the rule that makes it so", () => {
  const deny = `${POLICY}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only, namespace: prod}
spec: {action: DENY, rules: [{from: [{source: {notPrincipals: [td/ns/prod/sa/web, td/ns/prod/sa/batch]}}]}]}
`;
  const report = mutation(deny, one(WEB, "POST", "allow") + one(WEB, "GET", "deny") + one("td/x", "POST", "deny"));
  assert.deepEqual(changes(report, "equivalent"), [
    "`principals` is gone",
    "`principals` becomes `*`",
    "the rule is dropped",
  ]);
  assert.match(report.mutants.find(({ state }) => state === "equivalent")?.by ?? "", /rule 0 of `prod\/only` denies/);
});

test("a policy whose workload no test asks is told as unreached, and time that is up as not run", () => {
  const other = POLICY.replace("spec:", "spec:\n  selector: {matchLabels: {app: other}}");
  assert.ok(mutation(other, one(WEB, "POST", "allow")).mutants.every(({ state }) => state === "unreached"));
  const suite = suiteOf(POLICY, one(WEB, "POST", "allow"));
  const late = mutate([{ suite, results: runSuite(suite, options) }], {
    ...options,
    isOver: () => true,
    progress: () => {},
  });
  assert.equal(late.notRun, late.total);
});

const some = <T>(...items: readonly T[]) => fc.constantFrom(...items);
const list = (...items: readonly string[]) => fc.uniqueArray(some(...items), { minLength: 1, maxLength: 2 });
const principals = ["*", "td/a", "td/b", "td/*"];
const paths = ["*", "/a", "/b", "/a*"];
const fieldsOf = (fields: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record(fields, { requiredKeys: [] }).filter((given) => Object.keys(given).length > 0);
const rule = fc.record(
  {
    from: fc.array(
      fieldsOf({ principals: list(...principals), notPrincipals: list(...principals) }).map((source) => ({ source })),
      { minLength: 1, maxLength: 2 },
    ),
    to: fc.array(
      fieldsOf({ paths: list(...paths), notPaths: list(...paths), methods: list("GET", "PUT") }).map((operation) => ({
        operation,
      })),
      { minLength: 1, maxLength: 2 },
    ),
  },
  { requiredKeys: [] },
);
const policies = fc.array(
  fc.record({ action: some("ALLOW", "DENY"), rules: fc.array(rule, { minLength: 1, maxLength: 2 }) }),
  { minLength: 1, maxLength: 3 },
);

/** Every request that the small world above can tell apart. */
const requests = [null, "td/a", "td/b", "x/c"].flatMap((principal) =>
  [null, "/", "/a", "/ab", "/b"].flatMap((path) =>
    ["GET", "PUT"].map((method) =>
      readDecisionRequest({
        source: { principal },
        destination: { namespace: "prod", port: 80 },
        ...(path === null ? {} : { request: { method, path } }),
      }),
    ),
  ),
);

test("what is called equivalent decides every request the same", () => {
  let equivalent = 0;
  fc.assert(
    fc.property(policies, (given) => {
      const yaml = given.map((spec, index) =>
        JSON.stringify({
          apiVersion: "security.istio.io/v1",
          kind: "AuthorizationPolicy",
          metadata: { name: `p${index}`, namespace: "prod" },
          spec,
        }),
      );
      const suite = suiteOfJson(yaml.join("\n---\n"));
      const mesh = suite.mesh;
      const report = mutate([{ suite, results: [] }], { ...options, isOver: () => false, progress: () => {} });
      const before = new Decider(suite.resources, mesh, options);
      const mutants = suite.resources.flatMap(mutantsOf);
      for (const [index, mutant] of mutants.entries()) {
        const place = report.mutants.filter(({ state }) => state === "equivalent");
        const same = place.find(
          (each) =>
            each.change === mutant.change &&
            each.policy === `${mutant.resource.namespace}/${mutant.resource.name}` &&
            each.path === suite.locate(mutant.resource, mutant.path).path,
        );
        if (same === undefined) {
          continue;
        }
        equivalent++;
        const resources = suite.resources.flatMap((each) => (each === mutant.resource ? mutant.mutated : [each]));
        const after = new Decider(resources, mesh, options);
        for (const request of requests) {
          assert.equal(
            after.decide(request).decision,
            before.decide(request).decision,
            `mutant ${index} ${JSON.stringify(same)} ${JSON.stringify(request)}`,
          );
        }
      }
    }),
    {
      numRuns: 150,
      // An ALLOW rule that no longer asks for HTTP opens TCP.
      examples: [
        [
          [
            {
              action: "ALLOW",
              rules: [{ to: [{ operation: { notPaths: ["*"] } }] }, { to: [{ operation: { paths: ["*"] } }] }],
            },
            { action: "ALLOW", rules: [{ to: [{ operation: { methods: ["GET"] } }] }] },
          ],
        ],
      ],
    },
  );
  assert.ok(equivalent > 100, `only ${equivalent}`);
});

function suiteOfJson(text: string): Suite {
  const { resources, locate } = parseResources([{ file: "p.yaml", text }]);
  return { tests: [], resources, mesh: { trustDomain: "td", meshConfig: DEFAULT_MESH_CONFIG }, locate };
}

test("JUnit escapes what XML cannot hold; TAP what would end a line or a block", () => {
  const suite = suiteOf(POLICY, one(WEB, "PUT", "allow").replace('name: "', 'name: "<a> & \\"b\\" # \\u0001\\n...'));
  const results = runSuite(suite, options);
  const xml = junit(results);
  assert.match(xml, /<testsuites name="everyhop policy test" tests="1" failures="1"/);
  assert.match(xml, /name="&lt;a&gt; &amp; &quot;b&quot; # \ufffd/);
  assert.match(xml, /<failure type="decision" message="decision: expected allow, got deny">/);
  const lines = tap(results).split("\n");
  assert.deepEqual(lines.slice(0, 2), ["TAP version 14", "1..1"]);
  assert.match(lines[2]!, /^not ok 1 - pay: <a> & "b" \\# {2}\.\.\./);
  assert.equal(lines.filter((line) => line === "  ...").length, 1);
});
