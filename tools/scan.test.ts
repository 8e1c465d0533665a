// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are what the scanner reads
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { functionsOf, importsOf, mask } from "./scan.ts";

test("comments, strings, templates and regular expressions are blanked, offsets stay", () => {
  const table = [
    ["a // b\nc", "a     \nc"],
    ["a /* b\n */ c", "a     \n    c"],
    ["x = 'a\\'b' + \"c\"", "x = '    ' + \" \""],
    ["`a ${b + `c`} d`", "`  ${b + ` `}  `"],
    ["`${{ a: 1 }.a}`;{}", "`${{ a: 1 }.a}`;{}"],
    ["x = /[/'\"]\\//g; y", "x = /       /g; y"],
    ["a / b / c", "a / b / c"],
    ["return /'/", "return / /"],
    ["'open", "'    "],
    ["/* open", "       "],
  ] as const;
  for (const [text, expected] of table) {
    assert.equal(mask(text), expected, text);
  }
});

test("every way to import is seen, and none that only looks like one", () => {
  const text = [
    'import { a } from "./a.ts";',
    'import type { B } from "./b.ts";',
    'import { type C, d } from "./c.ts";',
    'import "./effect.ts";',
    'export * from "./e.ts";',
    'export type { F } from "./f.ts";',
    'const g = await import("./g.ts");',
    'let h: import("./h.ts").H;',
    "const i = await import(name);",
    'new Worker(new URL("./j.ts", import.meta.url));',
    'new URL("./not-this.txt", import.meta.url);',
    '// import "./comment.ts"',
    "const s = 'import \"./string.ts\"';",
    "import {\n  k,\n  l,\n} from './k.ts';",
    "const here = import.meta.dirname;",
    'export const from = "./no.ts";',
  ].join("\n");
  assert.deepEqual(
    importsOf(text).map(({ specifier, kind, line }) => [specifier, kind, line]),
    [
      ["./a.ts", "static", 1],
      ["./b.ts", "type", 2],
      ["./c.ts", "static", 3],
      ["./effect.ts", "static", 4],
      ["./e.ts", "static", 5],
      ["./f.ts", "type", 6],
      ["./g.ts", "dynamic", 7],
      ["./h.ts", "dynamic", 8],
      [null, "dynamic", 9],
      ["./j.ts", "url", 10],
      ["./k.ts", "static", 14],
    ],
  );
});

test("functions, methods and arrows are measured; classes, blocks and types are not", () => {
  const text = `
function a(b: { c: number }): Map<string, { d: number }> {
  if (b) {
    for (;;) {}
  }
}
class K extends (class {}) {
  #m(x = {}) {
    return x;
  }
  get n(): number {
    return 1;
  }
}
const f = async (x: number): Promise<void> => {
  while (x) {}
};
list.map(({ y }) => {
  return y;
});
interface T {
  m(): void;
}
const o = {
  p() {},
};
function generic<T extends object>(t: T): asserts t is T {
}
describe("all", { skip: false }, () => {
  it("is seen", () => {
    x();
  });
});
`;
  assert.deepEqual(
    functionsOf(text)
      .filter(({ lines }) => lines > 1)
      .map(({ name, line, lines }) => [name, line, lines])
      .sort((x, y) => Number(x[1]) - Number(y[1])),
    [
      ["a", 2, 5],
      ["#m", 8, 3],
      ["n", 11, 3],
      ["f", 15, 3],
      ["", 18, 3],
      ["generic", 27, 2],
      ["", 30, 3],
    ],
  );
});

test("the scanner reads its own source", () => {
  const source = readFileSync(`${import.meta.dirname}/scan.ts`, "utf8");
  assert.deepEqual(importsOf(source), []);
  assert.equal(mask(source).length, source.length);
  assert.equal(
    functionsOf(source).some(({ name }) => name === "endOfRegex"),
    true,
  );
});
