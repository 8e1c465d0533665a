import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseHcl } from "./hcl.ts";
import { object, optional, record, required, string, validate } from "./validate.ts";

const parsed = (text: string): unknown => JSON.parse(JSON.stringify(parseHcl(text).documents[0]?.value));

test("SPIRE's own shapes: nested and labelled blocks, lists, maps, comments", () => {
  const text = `# a comment
server {
  bind_port = "8081" // another
  ttl = 5 /* and
  one over lines */
  on = true
  list = ["a", "b",]
  plugins {
    NodeAttestor "k8s_psat" { plugin_data { clusters = { "production" = { allow = ["a:b"] } } } }
    NodeAttestor "join_token" { plugin_data {} }
    KeyManager "disk" { plugin_data { keys_path = "/k" } }
  }
  text = <<-EOF
    one
      two
  EOF
}`;
  assert.deepEqual(parsed(text), {
    server: {
      bind_port: "8081",
      ttl: 5,
      on: true,
      list: ["a", "b"],
      plugins: {
        NodeAttestor: {
          k8s_psat: { plugin_data: { clusters: { production: { allow: ["a:b"] } } } },
          join_token: { plugin_data: {} },
        },
        KeyManager: { disk: { plugin_data: { keys_path: "/k" } } },
      },
      text: "one\n  two\n",
    },
  });
});

test("the JSON form is the same document", () => {
  assert.deepEqual(parsed('{"server": {"a": [1, {"b": null}], "c": -1.5}}'), {
    server: { a: [1, { b: null }], c: -1.5 },
  });
});

test("faults have a place", () => {
  const table = [
    ["a {\n  b = 1\n", 3, 1, /`}` is missing/],
    ["a =\n", 2, 1, /expected a value/],
    ["a = 1\na = 2", 2, 1, /set twice/],
    ['a = "x\n', 1, 5, /closing `"`/],
    ["a b c", 1, 6, /expected `=` or `{`/],
    ["x = [1 2]", 1, 8, /`,` or `]`/],
    ["a = <<E\nx\n", 1, 5, /heredoc/],
    ["} ", 1, 1, /expected a name/],
    [`${"a {".repeat(100)}`, 1, 196, /nested/],
  ] as const;
  for (const [text, line, column, message] of table) {
    const [issue] = parseHcl(text, "f.conf").issues;
    assert.deepEqual([issue?.file, issue?.line, issue?.column], ["f.conf", line, column], text);
    assert.match(issue?.message ?? "", message);
  }
});

test("shapes report at the right place of an HCL file", () => {
  const shape = object({
    server: required(object({ trust_domain: required(string()), plugins: optional(record(record(string()))) })),
  });
  const { issues } = validate(shape, parseHcl('server {\n  trust_domian = "x"\n}\n', "s.conf").documents[0]!);
  assert.deepEqual(
    issues.map(({ line, column, hint }) => [line, column, hint]),
    [
      [2, 3, "did you mean `trust_domain`?"],
      [1, 8, undefined],
    ],
  );
});

test("any text gives a document or an issue, never a crash", () => {
  const alphabet = fc.constantFrom(
    "a",
    " ",
    "\n",
    "{",
    "}",
    "[",
    "]",
    "=",
    ",",
    '"',
    "\\",
    "<<E\n",
    "E\n",
    "1",
    "-",
    "#",
    "/*",
    "*/",
    "true",
    "__proto__",
  );
  fc.assert(
    fc.property(fc.array(alphabet, { maxLength: 60 }), (parts) => {
      const { documents, issues } = parseHcl(parts.join(""));
      assert.equal(documents.length + issues.length, 1);
    }),
    { numRuns: 2_000 },
  );
});
