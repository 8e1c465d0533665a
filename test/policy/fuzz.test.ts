/** Any bytes are an answer or a typed error, in time that grows with them and no faster. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EveryhopError } from "../../src/core/base/errors.ts";
import { Decider } from "../../src/core/policy/decide.ts";
import { readDecisionRequest } from "../../src/core/policy/decision-request.ts";
import { DEFAULT_MESH_CONFIG, parseMeshConfig } from "../../src/core/policy/mesh-config.ts";
import { normalizePath, PATH_NORMALIZATIONS } from "../../src/core/policy/normalize.ts";
import { parseResourceJson, parseResources } from "../../src/core/policy/parse.ts";
import { pathFault } from "../../src/core/policy/path-template.ts";
import { scenarioOf } from "../reference/agree.ts";
import { Minter } from "../reference/mint.ts";

const minter = new Minter();
const MESH = { trustDomain: "cluster.local", meshConfig: DEFAULT_MESH_CONFIG };

/** A typed error is an answer; anything else that is thrown is a fault of ours. */
function answers(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof EveryhopError, String((error as Error).stack));
  }
}

const parse = (text: string) => parseResources([{ file: "f.yaml", text }]);

test("any text is resources or issues with a place", () => {
  const seeds = [1, 2, 3, 4, 5].flatMap((seed) =>
    scenarioOf(seed, minter).documents.map((document) => JSON.stringify(document)),
  );
  const pieces = [
    "{",
    "}",
    "[",
    "]",
    ":",
    "- ",
    "\n",
    "---\n",
    "&a ",
    "*a",
    "!!",
    "'",
    '"',
    "|",
    ">",
    "#",
    "\t",
    "null",
    "kind: ",
    "spec",
    "\0",
    "é",
  ];
  const broken = fc
    .tuple(fc.constantFrom(...seeds), fc.nat(), fc.nat(40), fc.constantFrom(...pieces))
    .map(([text, at, cut, piece]) => text.slice(0, at % text.length) + piece + text.slice((at % text.length) + cut));
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: "binary" }),
        fc.array(fc.constantFrom(...pieces)).map((all) => all.join("")),
        broken,
      ),
      (text) => {
        for (const { message, severity } of parse(text).issues) {
          assert.ok(message !== "" && severity !== undefined);
        }
        answers(() => parseResourceJson(text));
        answers(() => parseMeshConfig(text));
      },
    ),
    { numRuns: 200 },
  );
});

test("any JSON is a request or a typed error, and every request is decided", () => {
  const documents = [7, 21, 33].flatMap((seed) => scenarioOf(seed, minter).documents);
  const named = documents.map((document, index) => ({
    ...document,
    metadata: { ...document.metadata, name: `n${index}` },
  }));
  const { resources } = parseResources(
    named.map((document, index) => ({ file: `${index}`, text: JSON.stringify(document) })),
  );
  const decider = new Decider(resources, MESH, { now: () => 0 });
  const text = fc.oneof(
    fc.string(),
    fc.string({ unit: "binary" }),
    fc.constantFrom("/", "*", "::1", "a/b", "http://", "GET", "\0", "\ud800"),
  );
  const headers = fc.dictionary(
    fc.oneof(text, fc.constantFrom("cookie", "connection", "te", "authorization")),
    fc.array(text, { maxLength: 3 }),
  );
  const request = fc.record(
    {
      method: text,
      path: text,
      host: text,
      headers,
      token: text,
      auth: fc.record({ issuer: text, claims: fc.object() }, { requiredKeys: [] }),
    },
    { requiredKeys: [] },
  );
  const line = fc.record(
    {
      id: fc.anything(),
      source: fc.record({ principal: text, ip: text, remoteIp: text }, { requiredKeys: [] }),
      destination: fc.record(
        { namespace: fc.constantFrom("prod", "x"), port: fc.integer(), sni: text },
        { requiredKeys: [] },
      ),
      request,
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.oneof(line, fc.anything()), (value) =>
      answers(() => {
        const answer = decider.decide(readDecisionRequest(value), { explain: true });
        assert.ok(["allow", "deny"].includes(answer.decision));
      }),
    ),
    { numRuns: 600 },
  );
});

test("a normalised path is normal: once more changes nothing that decides", () => {
  const piece = fc.constantFrom(
    "/",
    "..",
    ".",
    "%2e",
    "%2F",
    "%5c",
    "\\",
    "a",
    "%",
    "%25",
    "%00",
    ";",
    "?",
    "#",
    "//",
    "%41",
    "é",
    "{",
    " ",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), fc.constantFrom(...PATH_NORMALIZATIONS), (pieces, mode) => {
      const path = normalizePath(`/${pieces.join("")}`, mode);
      assert.ok(path === null || /^[\x21-\x7e]+$/.test(path));
      assert.ok(
        path === null || mode === "NONE" || !/(^|\/)\.\.?(\/|$)/.test(path.split("?", 1)[0] as string),
        path ?? "",
      );
    }),
    { numRuns: 3_000 },
  );
});

test("any text is a path of a policy or not", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (path) => void pathFault(path)));
});

/** Sizes at which something quadratic would be seen: they only have to come back. */
const LARGE: Readonly<Record<string, string>> = {
  "a billion laughs": `a: &a [x,x,x,x,x,x,x,x,x]\n${"bcdefghi".replace(/./g, (name, at) => `${name}: &${name} [${`*${"abcdefgh"[at]},`.repeat(9)}]\n`)}`,
  "ten thousand brackets": "[".repeat(10_000),
  "ten thousand nested mappings": `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`,
  "twenty thousand empty documents": "---\n".repeat(20_000),
  "a line of a megabyte": `kind: "${"x".repeat(1_000_000)}"`,
};

for (const [name, text] of Object.entries(LARGE)) {
  test(`${name}: refused or nothing`, () => assert.deepEqual(parse(text).resources, []));
}

test("a hundred thousand paths in one rule are compiled and looked up", () => {
  const paths = Array.from({ length: 100_000 }, (_, index) => `/item-${index}/*`);
  const policy = {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: "p", namespace: "prod" },
    spec: { rules: [{ to: [{ operation: { paths } }] }] },
  };
  const decider = new Decider(parse(JSON.stringify(policy)).resources, MESH, { now: () => 0 });
  const ask = (path: string) =>
    decider.decide(
      readDecisionRequest({ destination: { namespace: "prod" }, request: { method: "GET", path, host: "h" } }),
    );
  assert.equal(ask("/item-99999/x").status, 200);
  assert.equal(ask("/item-100000/x").status, 403);
});
