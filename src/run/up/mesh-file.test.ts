import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { EveryhopError } from "../../core/base/errors.ts";
import { parseMeshFile, readMeshFile } from "./mesh-file.ts";

const MINIMAL = `trustDomain: example.com
services:
  web: {namespace: production, command: [node, web.mjs], port: 8080}
`;

function issuesOf(source: string): string[] {
  try {
    parseMeshFile(source, "everyhop.yaml", "/nowhere");
  } catch (error) {
    assert(error instanceof EveryhopError, String(error));
    assert.equal(error.exitCode, 2);
    return error.issues.map(({ line, column, message }) => `${line}:${column} ${message}`);
  }
  return [];
}

test("a minimal file gets its defaults", () => {
  const mesh = parseMeshFile(MINIMAL, "everyhop.yaml", "/nowhere");
  assert.equal(mesh.trustDomain, "example.com");
  assert.deepEqual(mesh.services, [
    {
      name: "web",
      namespace: "production",
      serviceAccount: "web",
      labels: {},
      command: ["node", "web.mjs"],
      port: 8080,
      appPort: null,
      protocol: "http",
      selectors: null,
      user: null,
      env: {},
      startTimeoutMs: 20_000,
    },
  ]);
});

test("every fault is told at once, each with its place and what was meant", () => {
  const faults = issuesOf(`trustDomain: Example.com
polices: [policies/]
services:
  Web_1: {namespace: production, command: [node], port: 8080}
  api:
    namespace: production
    comand: [node, api.mjs]
    port: "8080"
    protocol: htp
    env: {"A B": x}
`);
  const expected = [
    /^1:14 `Example.com`: trust domain characters/,
    /^2:1 unknown field `polices`/,
    /^4:3 `Web_1` is not a DNS label/,
    /^7:5 unknown field `comand`/,
    /^8:11 expected a whole number, found `8080`/,
    /^9:15 expected one of http, http2, grpc, tcp, found `htp`/,
    /^10:11 `A B` is not the name of an environment variable/,
    /^6:5 `command` is missing/,
  ];
  for (const pattern of expected) {
    assert(
      faults.some((fault) => pattern.test(fault)),
      `${pattern} in ${faults.join("\n")}`,
    );
  }
  assert.equal(faults.length, expected.length, faults.join("\n"));
});

test("faults that need more than one field", () => {
  const table: [string, RegExp][] = [
    ["trustDomain: example.com\nservices: {}\n", /2:11 a mesh needs at least one service/],
    [`${MINIMAL}  web: {namespace: x, command: [a], port: 1}\n`, /keys must be unique/i],
    [
      `${MINIMAL.replace("port: 8080", "port: 8080, appPort: 3000")}  b: {namespace: x, command: [a], port: 1, appPort: 3000}\n`,
      /4:53 port 3000 is already `web`'s/,
    ],
    [`${MINIMAL}policies: [gone/]\n`, /4:12 `gone\/`: there is no such file or folder/],
    [`${MINIMAL}ca: {x509SvidTtl: soon}\n`, /4:19 expected a duration/],
    [`${MINIMAL}meshConfig: 3\n`, /4:13 expected a mapping/],
    [`${MINIMAL}---\n${MINIMAL}`, /holds more than one document/],
    ["", /is empty/],
    ["a: [", /./],
    [MINIMAL.replace("web:", "localhost:"), /`localhost` cannot be a service's name/],
    [MINIMAL.replace("[node, web.mjs]", "[]"), /needs at least 1 item/],
    [MINIMAL.replace("8080", "70000"), /70000 is not between 1 and 65535/],
  ];
  for (const [source, pattern] of table) {
    const faults = issuesOf(source);
    assert(
      faults.some((fault) => pattern.test(fault)),
      `${pattern} in ${faults.join("\n")}`,
    );
  }
});

test("durations stay as they are written", () => {
  const mesh = parseMeshFile(`${MINIMAL}ca: {x509SvidTtl: 2500ms, caTtl: 24h}\n`, "everyhop.yaml", "/nowhere");
  assert.deepEqual(mesh.ca, { x509SvidTtl: "2500ms", caTtl: "24h" });
});

test("a folder without the file is told so", () => {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-"));
  try {
    assert.throws(() => readMeshFile(dir), { code: "file-missing", message: /everyhop.yaml`: there is no such file/ });
    writeFileSync(join(dir, "everyhop.yaml"), MINIMAL);
    assert.equal(readMeshFile(dir).dir, dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
