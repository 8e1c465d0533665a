import assert from "node:assert/strict";
import { test } from "node:test";
import { duration, integer, list, object, optional, record, required, string, validate } from "./validate.ts";
import { formatPath, parseYaml } from "./yaml.ts";

const shape = object({
  name: required(string()),
  ttl: optional(duration()),
  ports: optional(list(integer(1, 9))),
  env: optional(record(string())),
});

test("faults carry file, line, column, path and a suggestion", () => {
  const { documents } = parseYaml("name: x\nttll: 1h\nports:\n- 3\n- 99\nenv: {A: 1}\n", "a.yaml");
  const { value, issues } = validate(shape, documents[0]!);
  assert.equal(value, undefined);
  assert.deepEqual(
    issues.map((issue) => [issue.file, issue.line, issue.column, issue.path, issue.hint]),
    [
      ["a.yaml", 2, 1, "ttll", "did you mean `ttl`?"],
      ["a.yaml", 5, 3, "ports[1]", undefined],
      ["a.yaml", 6, 10, "env.A", "put it in quotes"],
    ],
  );
});

test("a valid document is typed; several documents keep their index", () => {
  const { documents } = parseYaml("name: a\n---\n---\nname: b\nttl: 1h30m\n");
  assert.deepEqual(
    documents.map((document) => document.index),
    [0, 2],
  );
  assert.deepEqual(validate(shape, documents[1]!).value, { name: "b", ttl: 5_400_000 });
});

test("bad YAML, duplicate keys and alias bombs are issues, not crashes", () => {
  assert.equal(parseYaml("a: [1\n").issues.length > 0, true);
  assert.match(parseYaml("a: 1\na: 2\n").issues[0]!.message, /unique/);
  const bomb = `a0: &a0 [x]\n${Array.from({ length: 20 }, (_, i) => `a${i + 1}: &a${i + 1} [*a${i}, *a${i}, *a${i}]`).join("\n")}\n`;
  assert.equal(parseYaml(bomb).issues.length, 1);
});

test("paths are written as users read them", () => {
  assert.equal(formatPath(["spec", "rules", 0, "a.b/c"]), 'spec.rules[0]["a.b/c"]');
});
