import assert from "node:assert/strict";
import { test } from "node:test";
import { checkSizes, LIMITS } from "./sizes.ts";

const lines = (count: number): string => "x();\n".repeat(count);
const kinds = (text: string): string[] => checkSizes("a.ts", text).map(({ line, severity }) => `${line}:${severity}`);

test("a file wants a thought, then fails", () => {
  assert.deepEqual(kinds(lines(LIMITS.thoughtLines)), []);
  assert.deepEqual(kinds(lines(LIMITS.thoughtLines + 1)), ["1:warning"]);
  assert.deepEqual(kinds(lines(LIMITS.fileLines + 1)), ["1:error"]);
});

test("a long function fails, a long class or table does not", () => {
  const body = lines(LIMITS.functionLines);
  assert.deepEqual(kinds(`\nfunction f() {\n${body}}\n`), ["2:error"]);
  assert.deepEqual(kinds(`class C {\n${body}}\n`), []);
  assert.deepEqual(kinds(`const t = {\n${body}};\n`), []);
});
