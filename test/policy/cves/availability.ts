/** Group G: the control plane and availability. */
import assert from "node:assert/strict";
import { parseStrictJson } from "../../../src/core/jose/json.ts";
import { compile } from "../../../src/core/policy/compile.ts";
import { DEFAULT_MESH_CONFIG } from "../../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../../src/core/policy/parse.ts";
import { allow, decide, denied, faults, from, header, headFault, http, paths, policy, type Row } from "./scene.ts";

/** Patterns and texts that make a backtracking matcher try for hours. */
const LONG = "a".repeat(20_000);

export const AVAILABILITY: readonly Row[] = [
  {
    id: "CVE-2022-23635",
    attack: "an unauthenticated message crashes the control plane",
    answer:
      "no surface without mutual TLS (src/proxy/control.test.ts); whatever reaches the parser of resources is an answer or a typed error",
    check: () => {
      for (const text of [
        "\0",
        "{",
        "[[[",
        "a: &a [*a]",
        "%",
        "- ".repeat(5_000),
        "!!js/function x",
        "\ufeff",
        "? ? ?",
      ]) {
        assert.ok(parseResources([{ file: "x", text }]).resources.length === 0);
      }
    },
  },
  {
    id: "CVE-2026-31838",
    attack: "debug endpoints show other namespaces' configuration",
    answer: "no surface: a sidecar is sent its own slice; what selects it is its namespace's and the root's alone",
    check: () => {
      const { resources } = parseResources([{ file: "x", text: JSON.stringify(policy({}, { namespace: "other" })) }]);
      const mesh = { trustDomain: "t", meshConfig: DEFAULT_MESH_CONFIG };
      assert.deepEqual(compile(resources, { namespace: "prod", labels: {} }, mesh).policies, []);
    },
  },
  {
    id: "CVE-2019-14993",
    attack: "a regular expression of the user backtracks for ever",
    answer: "values are texts: no field is a regular expression, and none becomes one that backtracks",
    check: () => {
      const values = ["(a+)+$", "^(a|a)*$", "*(a*)*b"];
      denied(
        [allow(paths(...values), header("x", ...values), from({ namespaces: ["*a*a*a*a*a*a*a*b"] }))],
        [http({ path: `/${LONG}`, headers: { x: [LONG] } }, { principal: `t/ns/${LONG}/sa/x` })],
      );
    },
  },
  {
    id: "ISTIO-SECURITY-2026-006",
    attack: "many wildcards in a namespace or template make matching quadratic",
    answer: "pieces are looked for from left to right, each once; templates are linear",
    check: () => {
      const stars = `${"*a".repeat(500)}b`;
      denied([allow(from({ namespaces: [stars] }))], [http({}, { principal: `t/ns/${LONG}/sa/x` })]);
      denied([allow(paths(`${"/{*}".repeat(200)}/x`))], [http({ path: "/a".repeat(5_000) })]);
    },
  },
  {
    id: "CVE-2019-15226",
    attack: "thousands of tiny headers: each lookup walks them all",
    answer: "431: a head has at most a hundred fields",
    check: () => assert.notEqual(headFault("GET / HTTP/1.1", "Host: a", ...new Array<string>(5_000).fill("a:b")), null),
  },
  {
    id: "CVE-2023-44487",
    attack: "HTTP/2 streams opened and reset at once",
    answer: "no surface: sidecars speak HTTP/1.1; the servers of gRPC bound their streams",
    check: () => assert.notEqual(headFault("PRI * HTTP/2.0"), null),
  },
  {
    id: "CVE-2026-48042",
    attack: "JSON nested a hundred thousand levels deep in a token",
    answer: "refused at a hundred levels, without recursion",
    check: () => {
      assert.throws(() => parseStrictJson(`${"[".repeat(100_000)}${"]".repeat(100_000)}`));
      denied([], [http({ auth: { claims: JSON.parse(`${'{"a":'.repeat(2_000)}1${"}".repeat(2_000)}`) } })], 200);
    },
  },
  {
    id: "CVE-2026-47774",
    attack: "many cookie fields grow without bound when they are joined",
    answer: "a head is bounded as a whole; over HTTP/1.1 cookies stay apart",
    check: () => {
      const cookies = Array.from({ length: 90 }, (_, index) => `c${index}=1`);
      assert.equal(decide([allow(header("cookie", "c89=1"))], http({ headers: { cookie: cookies } })).status, 200);
      assert.notEqual(headFault("GET / HTTP/1.1", "Host: a", `Cookie: ${"x".repeat(70_000)}`), null);
    },
  },
  {
    id: "CVE-2020-8660",
    attack: "a handshake cut into pieces gets past the inspector that looks for TLS",
    answer: "no surface: ports are mutual TLS or not by configuration; under STRICT nothing else is taken",
    check: () => denied([{ ...policy({ mtls: { mode: "STRICT" } }), kind: "PeerAuthentication" }], [http({})], -1),
  },
  {
    id: "CVE-2020-8664",
    attack: "a secret that is gone leaves connections unauthenticated",
    answer:
      "without an identity nothing is served (src/proxy/lifecycle.test.ts); without a principal positive fields are false",
    check: () => denied([allow(from({ principals: ["*"] }))], [http({})]),
  },
  {
    id: "xDS cache keys",
    attack: "a cache key that leaves out an input serves one workload the policies of another",
    answer: "what is kept per workload is kept by its namespace and all its labels",
    check: () => {
      const selective = policy({ selector: { matchLabels: { app: "a" } }, action: "DENY", rules: [{}] });
      const line = (labels: object) => ({ ...http({}), destination: { namespace: "prod", labels } });
      denied([selective], [line({ app: "a" }), line({ app: "a", b: "c" })]);
      assert.equal(decide([selective], line({ app: "b" })).status, 200);
    },
  },
  {
    id: "istio note 54146",
    attack: "several STRICT ports are ANDed and none is strict",
    answer: "each port by itself",
    check: () => {
      const spec = {
        selector: { matchLabels: { app: "a" } },
        portLevelMtls: { 1: { mode: "STRICT" }, 2: { mode: "STRICT" } },
      };
      const peer = { ...policy(spec), kind: "PeerAuthentication" };
      const line = (port: number) => ({ ...http({}), destination: { namespace: "prod", labels: { app: "a" }, port } });
      denied([peer], [line(1), line(2)], -1);
      assert.equal(decide([peer], line(3)).status, 200);
    },
  },
  {
    id: "CVE-2019-12243",
    attack: "the external check fails, and the request passes",
    answer: "denied: a check that cannot be made, or whose provider nobody knows, denies",
    check: () => denied([policy({ action: "CUSTOM", provider: { name: "gone" }, rules: [{}] })], [http({})]),
  },
  {
    id: "configuration that is ignored",
    attack: "a misspelt field (`form:`) silently widens a DENY or an ALLOW",
    answer: "refused, with its place and what was probably meant",
    check: () => {
      const [message] = faults(policy({ rules: [{ form: [{ source: { namespaces: ["a"] } }] }] }));
      assert.match(message ?? "", /form/);
    },
  },
];
