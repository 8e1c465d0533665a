/** Meshes of real processes for tests: started through the CLI in folders of their own, ended whatever happens. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import type { MeshDocument } from "../../src/run/up/document.ts";

export const ROOT = join(import.meta.dirname, "..", "..");
export const EXAMPLE = join(ROOT, "examples", "payments");
const MAIN = join(ROOT, "src", "cli", "main.ts");

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** What goes before the command, as `setpriv …`. */
  readonly wrap?: readonly string[];
}

/** Runs `everyhop` to its end. */
export function everyhop(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return run([process.execPath, MAIN, ...args], options);
}

export function run(command: readonly string[], { cwd, env, wrap = [] }: RunOptions = {}): Promise<Ran> {
  const [file = "", ...args] = [...wrap, ...command];
  const child = spawn(file, args, {
    cwd: cwd ?? ROOT,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk;
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout, stderr }));
  });
}

const cleanups = new WeakMap<TestContext, (() => unknown)[]>();

/** Runs at the test's end, the last one registered first: a mesh is ended before its folder goes. */
export function cleanUp(t: TestContext, action: () => unknown): void {
  const actions = cleanups.get(t);
  if (actions !== undefined) {
    actions.push(action);
    return;
  }
  const first = [action];
  cleanups.set(t, first);
  t.after(async () => {
    for (const one of first.reverse()) {
      await one();
    }
  });
}

/** A folder with `files` in it, removed at the test's end. */
export function folder(t: TestContext, files: Readonly<Record<string, string>> = {}): string {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), "everyhop-test-")));
  cleanUp(t, () => rmSync(dir, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), content);
  }
  return dir;
}

/** A service in a few lines: says who it is, and what it was asked. */
export const ECHO_SERVICE = `
import { createServer } from "node:http";
createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => { body += chunk; });
  request.on("end", () => response.end(JSON.stringify({ service: process.env.EVERYHOP_SERVICE, url: request.url, body })));
}).listen(Number(process.env.PORT), process.env.HOST);
`;

/** Two services; \`web\` may call \`echo\`, nobody else anybody. */
export const SMALL_MESH: Readonly<Record<string, string>> = {
  "echo.mjs": ECHO_SERVICE,
  "everyhop.yaml": `trustDomain: test.example
policies: [policies/]
services:
  echo:
    namespace: shop
    labels: {app: echo}
    command: [node, echo.mjs]
    port: 8080
  web:
    namespace: shop
    labels: {app: web}
    command: [node, echo.mjs]
    port: 8080
`,
  "policies/policies.yaml": `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: echo, namespace: shop}
spec:
  selector: {matchLabels: {app: echo}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {methods: [POST], paths: [/allowed]}}]
`,
};

export interface UpOptions extends RunOptions {
  readonly flags?: readonly string[];
}

/** Starts the mesh of `dir` in the background; it is ended with the test. */
export async function up(t: TestContext, dir: string, options: UpOptions = {}): Promise<MeshDocument> {
  cleanUp(t, () => everyhop(["down", dir], options));
  const { code, stdout, stderr } = await everyhop(["up", dir, "--detach", "--json", ...(options.flags ?? [])], options);
  if (code !== 0) {
    throw new Error(`\`everyhop up\` ended with ${code}: ${stdout}\n${stderr}`);
  }
  return JSON.parse(stdout) as MeshDocument;
}

/** Processes whose command line or environment names `text` (a state folder, a temporary folder), but for ourselves. */
export function processesNaming(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => {
      try {
        const seen = ["cmdline", "environ"].map((file) => readFileSync(`/proc/${pid}/${file}`, "latin1"));
        return seen.join("\0").includes(text) && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
      } catch {
        return false;
      }
    });
}

/** Resolves once `condition` holds; rejects after `timeoutMs`. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 20_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) {
      throw new Error(`not within ${timeoutMs} ms: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
