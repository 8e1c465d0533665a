/** Cases in which the engine once decided otherwise than a real Envoy behind Istio's compiler: each stays decided right. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Decider } from "../../src/core/policy/decide.ts";
import { readDecisionRequest } from "../../src/core/policy/decision-request.ts";
import { DEFAULT_MESH_CONFIG } from "../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../src/core/policy/parse.ts";
import { Minter } from "../reference/mint.ts";

const minter = new Minter();
const NOW_MS = Date.UTC(2026, 8, 1);

type Json = Record<string, unknown>;

function decide(documents: readonly object[], line: Json) {
  const files = documents.map((document, index) => ({ file: `${index}.yaml`, text: JSON.stringify(document) }));
  const { resources, issues } = parseResources(files);
  assert.deepEqual(
    issues.filter(({ severity }) => severity === "error"),
    [],
  );
  const decider = new Decider(
    resources,
    { trustDomain: "cluster.local", meshConfig: DEFAULT_MESH_CONFIG },
    { now: () => NOW_MS },
  );
  return decider.decide(readDecisionRequest({ destination: { namespace: "prod", port: 8080 }, ...line }));
}

const resource = (kind: string, spec: Json, metadata: Json = {}): object => ({
  apiVersion: "security.istio.io/v1",
  kind,
  metadata: { name: "p", namespace: "prod", ...metadata },
  spec,
});

const request = (fields: Json): Json => ({ request: { method: "GET", path: "/", host: "shop", ...fields } });

const HOSTS: Readonly<Record<string, number>> = {
  "shop:99999": 200,
  "user@shop": 200,
  "a_b,c;d!e'f*": 200,
  "a b": 400,
  "a/b": 400,
  "a\\b": 400,
  "a#b": 400,
  "a?b": 400,
  "a|b": 400,
  "<a>": 400,
  "{a}": 400,
  é: 400,
};

for (const [host, status] of Object.entries(HOSTS)) {
  test(`Host \`${host}\` is answered ${status}`, () => assert.equal(decide([], request({ host })).status, status));
}

/** Status, and the host that policies see. */
const TARGETS: Readonly<Record<string, readonly [number, string?]>> = {
  "HTTP://other/a": [200, "other"],
  "http://user:pw@other/a": [200, "other"],
  "http://@other:80/a": [200, "other:80"],
  "http://other:080/a": [200, "other:080"],
  "http://[::1]:80/a": [200, "[::1]:80"],
  "http://other": [200, "other"],
  "http://other:/a": [400],
  "http://other:65536/a": [400],
  "http://other:8a/a": [400],
  "http://o_ther/a": [400],
  "http://o%74her/a": [400],
  "http://[a]/a": [400],
  "http://[::1]x/a": [400],
  "http://a@b@other/a": [400],
  "http:///a": [400],
  "ftp://other/a": [400],
};

for (const [path, [status, host]] of Object.entries(TARGETS)) {
  test(`the target \`${path}\` is answered ${status}${host === undefined ? "" : `, for ${host}`}`, () => {
    const answer = decide(
      [resource("AuthorizationPolicy", { rules: [{ to: [{ operation: { hosts: [host ?? "*"] } }] }] })],
      request({ path }),
    );
    assert.equal(answer.status, status);
  });
}

/** What a header named in `connection` becomes. */
const HOP_BY_HOP: readonly (readonly [name: string, headers: Json, status: number])[] = [
  ["a header that is named goes", { connection: ["x-a"], "x-a": ["1"] }, 403],
  ["a WebSocket upgrade keeps it", { connection: ["upgrade, x-a"], upgrade: ["websocket"], "x-a": ["1"] }, 200],
  ["`te` stays", { connection: ["te, close"], te: ["trailers"] }, 200],
  ["what tells of the client may not be named", { connection: ["x-forwarded-for"], "x-a": ["1"] }, 400],
  ["nor may the host", { connection: ["host"], "x-a": ["1"] }, 400],
];

for (const [name, headers, status] of HOP_BY_HOP) {
  test(`connection: ${name}`, () => {
    const when = ["x-a", "te"].map((header) => ({ when: [{ key: `request.headers[${header}]`, values: ["*"] }] }));
    assert.equal(decide([resource("AuthorizationPolicy", { rules: when })], request({ headers })).status, status);
  });
}

test("an address with a zone in X-Forwarded-For is none", () => {
  const rules = [{ from: [{ source: { remoteIpBlocks: ["2001:db8::/32"] } }] }];
  const from = (address: string) => request({ headers: { "x-forwarded-for": [address] } });
  assert.equal(decide([resource("AuthorizationPolicy", { rules })], from("2001:db8::1")).status, 200);
  assert.equal(decide([resource("AuthorizationPolicy", { rules })], from("2001:db8::1%eth0")).status, 403);
});

const T = minter.token({ iss: "i", sub: "a" });
const J = minter.token({ iss: "j", sub: "b" });
const BAD = minter.token({ iss: "i", sub: "a" }, "other");
const place = { fromHeaders: [{ name: "x-token" }] };
const rule = (issuer: string, more: Json = {}): Json => ({ issuer, jwks: minter.jwks, ...more });
const withToken = (...tokens: string[]): Json => request({ headers: { "x-token": tokens } });

/** Tokens that are good go before the rules are tried once more; what is left then may pass as missing. */
const TOKENS: readonly (readonly [name: string, rules: readonly Json[], line: Json, status: number])[] = [
  ["one rule, the second line good", [rule("i", place)], withToken(BAD, T), 401],
  ["two rules, the last line good", [rule("i", place), rule("j")], withToken(BAD, T), 200],
  ["two rules, the first line good", [rule("i", place), rule("j")], withToken(T, BAD), 401],
  ["two rules at one place, a line each", [rule("i", place), rule("j", place)], withToken(T, J), 200],
  [
    "two rules, a header and a parameter",
    [rule("i"), rule("j")],
    request({ headers: { authorization: [`Bearer ${T}`] }, path: `/?access_token=${J}` }),
    200,
  ],
  ["empty parts are passed over", [rule("i", place)], withToken(`${T}.`), 200],
  ["a number too large for any", [rule("i", place)], withToken(minter.text('{"iss":"i","sub":"a","n":1e400}')), 401],
  ["half a character", [rule("i", place)], withToken(minter.text('{"iss":"i","sub":"\\ud800"}')), 401],
  [
    "ninety levels",
    [rule("i", place)],
    withToken(minter.text(`{"iss":"i","o":${"[".repeat(90)}${"]".repeat(90)}}`)),
    200,
  ],
];

for (const [name, jwtRules, line, status] of TOKENS) {
  test(`tokens: ${name}`, () => {
    assert.equal(decide([resource("RequestAuthentication", { jwtRules })], line).status, status);
  });
}

test("several CUSTOM providers on one workload deny on TCP too", () => {
  const custom = (name: string) =>
    resource("AuthorizationPolicy", { action: "CUSTOM", provider: { name }, rules: [{}] }, { name });
  const answer = decide([custom("one"), custom("two")], {});
  assert.deepEqual([answer.status, answer.reason], [-1, "custom-denied"]);
});

test("of two PeerAuthentications of the same second the name decides", () => {
  const peer = (name: string, mode: string) =>
    resource("PeerAuthentication", { mtls: { mode } }, { name, creationTimestamp: "2024-01-01T00:00:00Z" });
  assert.equal(decide([peer("b", "STRICT"), peer("a", "PERMISSIVE")], request({})).mtls, "permissive");
  assert.equal(decide([peer("a", "STRICT"), peer("b", "PERMISSIVE")], request({})).mtls, "strict");
});
