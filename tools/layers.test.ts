import assert from "node:assert/strict";
import { test } from "node:test";
import { checkLayers, compareTable, folderOf, formatTable, formatViolation, isTest } from "./layers.ts";

const check = (files: Record<string, string>): string[] =>
  checkLayers(new Map(Object.entries(files))).map((violation) => formatViolation(violation));

test("downward and own-folder imports are in order, also of types and of generated code", () => {
  assert.deepEqual(
    check({
      "src/cli/a.ts": 'import "../run/b.ts"; import type { X } from "../core/base/x.ts";',
      "src/run/b.ts": 'import "./c.ts"; import "../gen/g_pb.js";',
      "src/run/c.ts": 'import fs from "node:fs"; import pg from "pg";',
      "src/gen/g_pb.js": "",
      "src/core/base/x.ts": 'import { parse } from "yaml";',
      "src/core/x509/y.ts": 'import { createHash } from "node:crypto"; import "../base/x.ts";',
      "web/main.ts": 'import "../src/core/api/z.ts";',
      "src/core/api/z.ts": "",
    }),
    [],
  );
});

test("upward, sideways and type-only imports are refused with their chain", () => {
  assert.deepEqual(
    check({
      "src/io/a.ts": 'import "../control/b.ts";',
      "src/control/b.ts": "\nimport type { P } from '../proxy/p.ts';",
      "src/proxy/p.ts": "",
    }),
    [
      "src/control/b.ts:2: control may not import proxy, which stands on the same line as it\n    src/control/b.ts\n    → src/proxy/p.ts",
      "src/io/a.ts:1: io may not import control, which stands above it\n    src/io/a.ts\n    → src/control/b.ts",
    ],
  );
});

test("dynamic imports and workers count; a computed import is refused", () => {
  const found = check({
    "src/proxy/a.ts":
      'await import("../run/r.ts");\nnew Worker(new URL("../cli/c.ts", import.meta.url));\nimport(name);',
    "src/run/r.ts": "",
    "src/cli/c.ts": "",
  });
  assert.equal(found.length, 3);
  assert.match(found[0] as string, /a\.ts:1: proxy may not import run/);
  assert.match(found[1] as string, /a\.ts:2: proxy may not import cli/);
  assert.match(found[2] as string, /a\.ts:3: imports a computed name/);
});

test("what is never reached is looked for through others, and the chain is shown", () => {
  const found = check({
    "src/proxy/a.ts": 'import "../workload/w.ts";',
    "src/workload/w.ts": 'import "../io/rpc/r.ts";',
    "src/io/rpc/r.ts": '\n\nimport "../store/sql.ts";',
    "src/io/store/sql.ts": "",
    "src/identity/agent/x.ts": 'import "../authority/ca.ts";',
    "src/identity/authority/ca.ts": "",
  });
  assert.deepEqual(found, [
    "src/identity/agent/x.ts:1: identity/agent reaches identity/authority, which it never may\n    src/identity/agent/x.ts\n    → src/identity/authority/ca.ts",
    "src/proxy/a.ts:1: proxy reaches io/store, which it never may\n    src/proxy/a.ts\n    → src/workload/w.ts\n    → src/io/rpc/r.ts\n    → src/io/store/sql.ts",
  ]);
  assert.equal(check({ "src/gateway/a.ts": 'import "../io/keys.ts";', "src/io/keys.ts": "" }).length, 1);
  assert.equal(check({ "src/gateway/a.ts": 'import "../io/keyset.ts";', "src/io/keyset.ts": "" }).length, 0);
});

test("a circle is refused, also one made of types, also among tests", () => {
  const found = check({
    "src/io/a.ts": 'import type { B } from "./b.ts";',
    "src/io/b.ts": 'import type { C } from "./c.ts";',
    "src/io/c.ts": '\nimport type { A } from "./a.ts";',
    "src/io/x.test.ts": 'import "./y.test.ts";',
    "src/io/y.test.ts": 'import "./x.test.ts";',
  });
  assert.deepEqual(found, [
    "src/io/c.ts:2: imports in a circle (type imports count)\n    src/io/a.ts\n    → src/io/b.ts\n    → src/io/c.ts\n    → src/io/a.ts",
    "src/io/y.test.ts:1: imports in a circle (type imports count)\n    src/io/x.test.ts\n    → src/io/y.test.ts\n    → src/io/x.test.ts",
  ]);
});

test("core is pure; its tests need not be", () => {
  const text = [
    'import { readFileSync } from "node:fs";',
    'import { createHash } from "node:crypto";',
    'import koffi from "koffi";',
    "const t = Date.now() + new Date().getTime();",
    "const r = Math.random();",
    "const e = process.env.X;",
    "// Date.now() in a comment, clock.now(), new Date(0), subprocess.x",
    'const ok = "Math.random()";',
  ].join("\n");
  const lines = check({ "src/core/policy/a.ts": text }).map((line) => line.split(":").slice(0, 2).join(":"));
  assert.deepEqual(
    lines,
    [1, 2, 3, 4, 4, 5, 6].map((line) => `src/core/policy/a.ts:${line}`),
  );
  assert.deepEqual(check({ "src/core/policy/a.test.ts": text }), []);
});

test("web reaches core only, and never Node", () => {
  const found = check({
    "web/a.ts": 'import "../src/core/x509/x.ts";\nimport "../src/io/i.ts";',
    "src/core/x509/x.ts": 'import { createHash } from "node:crypto";',
    "src/io/i.ts": "",
  });
  assert.equal(found.length, 2);
  assert.match(
    found[0] as string,
    /web\/a\.ts:1: web reaches node:crypto[\s\S]*→ src\/core\/x509\/x\.ts\n {4}→ node:crypto/,
  );
  assert.match(found[1] as string, /web\/a\.ts:2: web imports core only/);
});

test("what ships imports neither tests nor what lies outside src, and every file has a folder of the table", () => {
  const found = check({
    "src/io/a.ts":
      'import "./b.test.ts"; import "./c-fixture.ts"; import "../../test/mesh.ts"; import "../../tools/x.ts";',
    "src/io/b.test.ts": 'import "../../test/mesh.ts"; import "../cli/up.ts";',
    "src/io/c-fixture.ts": "",
    "src/cli/up.ts": "",
    "src/helpers/x.ts": "",
  });
  assert.equal(found.filter((line) => line.startsWith("src/io/a.ts:1:")).length, 4);
  assert.match(found[0] as string, /src\/helpers\/x\.ts:1: lies in no folder/);
  assert.equal(found.length, 5);
  assert.deepEqual(
    ["a.test.ts", "fixture.ts", "x-fixture.ts", "fixtures/a.ts", "affixture.ts", "fixtures.json"].map(isTest),
    [true, true, true, true, false, false],
  );
  assert.equal(folderOf("src/identity/agent/x/y.ts"), "identity/agent");
});

test("the document's copy of the table is compared", () => {
  assert.equal(compareTable(`# x\n\`\`\`\n${formatTable()}\n\`\`\`\n`), null);
  assert.match(compareTable("# x\n```\ncli\nrun\n```\n") as string, /not the one/);
});
