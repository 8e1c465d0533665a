import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { DEFAULT_MESH_CONFIG } from "../core/policy/mesh-config.ts";
import { judge, NOTHING_ACCEPTED } from "./change.ts";
import { meshFindings } from "./findings.ts";
import { DOMAIN, testService } from "./fixture.ts";
import { PolicyReader } from "./policies.ts";
import { describeWorkload } from "./world.ts";

const workloads = ["payment-service", "api-gateway"].map((name) => describeWorkload(testService(name), DOMAIN));
const court = {
  mesh: { trustDomain: DOMAIN, meshConfig: DEFAULT_MESH_CONFIG, workloads },
  reader: new PolicyReader(),
};

const policy = (
  name: string,
  rest = "app: payment-service",
  principal = "api-gateway",
) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ${name}, namespace: production}
spec:
  selector: {matchLabels: {${rest}}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/production/sa/${principal}]}}]
`;
const files = (texts: Readonly<Record<string, string>>) => new Map(Object.entries(texts));
const BAD = policy("b").replace("selector", "selektor");

describe("saved files", () => {
  const last = judge(files({ "a.yaml": policy("a"), "b.yaml": policy("b") }), NOTHING_ACCEPTED, court).accepted;
  const names = (judged: ReturnType<typeof judge>) => judged.accepted.policies.map(({ name }) => name);

  test("valid ones are in force", () => {
    const judged = judge(files({ "a.yaml": policy("a2"), "c.yaml": policy("c") }), last, court);
    assert.deepEqual(names(judged), ["a2", "c"]);
    assert.deepEqual(judged.refused, []);
  });

  test("one that is not valid is refused with its place, and what it said stays in force; the others go on", () => {
    const judged = judge(files({ "a.yaml": policy("a2"), "b.yaml": BAD }), last, court);
    assert.deepEqual(names(judged), ["a2", "b"]);
    const [issue, ...more] = judged.refused;
    assert.deepEqual(more, []);
    assert.deepEqual([issue?.file, issue?.line, issue?.column], ["b.yaml", 5, 3]);
    assert.match(issue?.message ?? "", /unknown field `selektor`/);
    assert.match(issue?.hint ?? "", /did you mean `selector`\?/);
  });

  test("a new one that is not valid says nothing", () => {
    const judged = judge(files({ "a.yaml": policy("a"), "b.yaml": policy("b"), "c.yaml": "kind: [" }), last, court);
    assert.deepEqual(names(judged), ["a", "b"]);
    assert.equal(judged.refused[0]?.file, "c.yaml");
  });

  test("one that was refused is judged again, and gone when its file is", () => {
    const refused = judge(files({ "a.yaml": policy("a"), "b.yaml": BAD }), last, court);
    assert.equal(judge(files({ "a.yaml": policy("a"), "b.yaml": BAD }), refused.accepted, court).refused.length, 1);
    const gone = judge(files({ "a.yaml": policy("a") }), refused.accepted, court);
    assert.deepEqual([names(gone), gone.refused], [["a"], []]);
    const fixed = judge(files({ "a.yaml": policy("a"), "b.yaml": policy("b3") }), refused.accepted, court);
    assert.deepEqual([names(fixed), fixed.refused], [["a", "b3"], []]);
  });

  test("a resource that is there twice: the change that brings it is refused, whichever file is named", () => {
    for (const name of ["0.yaml", "z.yaml"]) {
      const twice = { "a.yaml": policy("a"), "b.yaml": policy("b2"), [name]: policy("a") };
      const judged = judge(files(twice), last, court);
      assert.deepEqual(names(judged), ["a", "b2"], name);
      assert.match(judged.refused[0]?.message ?? "", /is there twice/);
    }
  });

  test("moving a resource between files is one change", () => {
    const judged = judge(files({ "a.yaml": "", "b.yaml": `${policy("a")}---\n${policy("b")}` }), last, court);
    assert.deepEqual([names(judged), judged.refused], [["a", "b"], []]);
  });
});

describe("findings on what is in force", () => {
  const about = ["selects-nothing", "unknown-principal"];
  const findings = (text: string) =>
    meshFindings(judge(files({ "a.yaml": text }), NOTHING_ACCEPTED, court).accepted, court.mesh)
      .filter(({ code }) => about.includes(code))
      .map(({ code, line, hint }) => [code, line, hint]);

  test("none where all is well", () => assert.deepEqual(findings(policy("a")), []));

  test("a selector that selects nothing, with the label it may mean", () => {
    assert.deepEqual(findings(policy("a", "app: payment-servise")), [
      ["selects-nothing", 5, "did you mean `app: payment-service`?"],
    ]);
    assert.deepEqual(findings(policy("a").replace("namespace: production", "namespace: prodution")), [
      ["selects-nothing", 5, "did you mean the namespace `production`?"],
    ]);
  });

  test("a principal that no service has, with the one it may mean, in the spelling it was written in", () => {
    assert.deepEqual(findings(policy("a", "app: payment-service", "api-gatewey")), [
      ["unknown-principal", 7, "did you mean `cluster.local/ns/production/sa/api-gateway`?"],
    ]);
    assert.deepEqual(findings(policy("a", "app: payment-service", "something-else-altogether-and-longer")), [
      ["unknown-principal", 7, undefined],
    ]);
    assert.deepEqual(
      findings(policy("a", "app: payment-service", "'*'").replace("cluster.local/ns/production/sa/'*'", "'*'")),
      [],
    );
    assert.deepEqual(findings(policy("a").replace("cluster.local", "partner.org")), []);
  });
});
