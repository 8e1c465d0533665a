import assert from "node:assert/strict";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { loadAgentConfig } from "../src/run/agent-config.ts";
import { loadProxyConfig } from "../src/run/proxy-config.ts";
import { readServerConfig } from "../src/run/server-config.ts";
import { parseMeshFile } from "../src/run/up/mesh-file.ts";
import { readmeBlocks, readmeCommand, shellBlocks } from "./readme.ts";

const ROOT = join(import.meta.dirname, "..");
const read = (file: string): string => readFileSync(join(ROOT, file), "utf8");
const documents = ["*.md", "docs/**/*.md", "examples/**/*.md", "deploy/**/*.md"].flatMap((glob) =>
  globSync(glob, { cwd: ROOT }),
);

test("the README's first two commands are those the project promises, and CI runs the second", () => {
  const runs = readmeBlocks().map(({ name }) => name);
  assert.deepEqual(runs.slice(0, 2), ["start", "test"]);
  assert.equal(readmeCommand("start"), "npm ci && npm start");
  assert.equal(readmeCommand("test"), "npm ci && npm test");
  assert.ok(read(".ci/run").includes(`bash -c '${readmeCommand("test")}'`), ".ci/run runs the README's test command");
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  assert.equal(scripts.start, "bin/everyhop.js up examples/payments");
  assert.equal(scripts.test, "node tools/test.ts");
});

test("every command of the README is run by a test", () => {
  const unmarked = readmeBlocks().filter(({ name }) => name === null);
  assert.deepEqual(unmarked, []);
});

test("shell blocks are found with their marks", () => {
  const text = "a\n\n<!-- run: one -->\n```sh\nx\ny\n```\n\n```sh\nz\n```\n```\nplain\n```\n";
  assert.deepEqual(
    shellBlocks(text).map(({ name, text: block }) => [name, block]),
    [
      ["one", "x\ny\n"],
      [null, "z\n"],
    ],
  );
});

/** Headings as the links to them are written. */
function anchors(markdown: string): Set<string> {
  const headings = [...markdown.matchAll(/^#+ (.+)$/gm)].map((match) => (match[1] as string).toLowerCase());
  return new Set(headings.map((text) => text.replace(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")));
}

test("links between documents lead somewhere", () => {
  const dead: string[] = [];
  for (const document of documents) {
    const prose = read(document).replace(/^```[\s\S]*?^```$/gm, "");
    for (const [, target = ""] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) {
        continue;
      }
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? join(ROOT, document) : resolve(ROOT, dirname(document), path);
      const there = existsSync(file) && (anchor === undefined || anchors(readFileSync(file, "utf8")).has(anchor));
      if (!there) {
        dead.push(`${document}: ${target}`);
      }
    }
  }
  assert.deepEqual(dead, []);
});

test("configurations in the documents are valid", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "everyhop-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const readers: Readonly<Record<string, (file: string) => unknown>> = {
    mesh: (file) => parseMeshFile(readFileSync(file, "utf8"), file, join(ROOT, "examples/payments")),
    server: readServerConfig,
    agent: loadAgentConfig,
    proxy: loadProxyConfig,
  };
  const seen: string[] = [];
  for (const document of documents) {
    for (const [, kind = "", text = ""] of read(document).matchAll(
      /^<!-- config: (\w+) -->\n```yaml\n([\s\S]*?)^```$/gm,
    )) {
      const file = join(folder, `${kind}.yaml`);
      writeFileSync(file, text);
      assert.doesNotThrow(() => readers[kind]?.(file), `${document}: ${kind}`);
      seen.push(kind);
    }
  }
  assert.deepEqual([...new Set(seen)].sort(), Object.keys(readers).sort());
});
