/**
 * npm run check: types, lint and format, layers, sizes, the repository's own rules, generated documents, unit tests.
 * What does not depend on each other runs at once; what fails is printed in full, at the end a line per part.
 */
import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { availableParallelism } from "node:os";
import { Writable } from "node:stream";
import { styleText } from "node:util";
import { type Phase, runTests } from "./run-tests.ts";

export interface Result {
  readonly name: string;
  readonly ok: boolean;
  readonly ms: number;
  readonly output: string;
  /** A few words for the summary line. */
  readonly note: string;
}

const ROOT = process.cwd();

const PARTS: readonly { readonly name: string; readonly script: string; readonly args: readonly string[] }[] = [
  { name: "types", script: "node_modules/typescript/bin/tsc", args: ["-p", "."] },
  {
    name: "lint and format",
    script: "tools/biome.ts",
    args: ["ci", "--error-on-warnings", "--colors=off"],
  },
  { name: "layers", script: "tools/layers.ts", args: [] },
  { name: "sizes", script: "tools/sizes.ts", args: [] },
  { name: "repository", script: "tools/repository.ts", args: [] },
  { name: "documents", script: "tools/docs.ts", args: ["--check"] },
];

/** The tests that stand beside the sources. */
export function unitPhase(): Phase {
  const files = ["src/**/*.test.ts", "tools/**/*.test.ts", "web/**/*.test.ts"].flatMap((glob) => globSync(glob)).sort();
  return { files, concurrency: Math.max(2, availableParallelism()), quiet: true };
}

function runPart(name: string, script: string, args: readonly string[]): Promise<Result> {
  const start = performance.now();
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, ...args], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    const collect = (chunk: Buffer): void => {
      output += chunk.toString();
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", (error) => {
      output += error.message;
    });
    child.on("close", (code) => {
      const lastLine = output.trimEnd().split("\n").at(-1) ?? "";
      const note = lastLine.startsWith(`${name}: `) ? lastLine.slice(name.length + 2) : "";
      resolve({ name, ok: code === 0, ms: performance.now() - start, output, note });
    });
  });
}

async function runUnitTests(): Promise<Result> {
  const start = performance.now();
  let output = "";
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      output += chunk.toString();
      done();
    },
  });
  const { counts, failed, skips } = await runTests([unitPhase()], { root: ROOT, output: sink });
  const skipped = skips.map(({ file, test, reason }) => `skipped: ${file}: ${test} (${reason || "no reason given"})\n`);
  const note = `${counts.pass} passed, ${counts.fail} failed, ${counts.skipped} skipped`;
  return { name: "unit tests", ok: !failed, ms: performance.now() - start, output: output + skipped.join(""), note };
}

/** Runs every part but the unit tests; prints a line as each ends, and the output of what failed. */
export async function checkSources(): Promise<boolean> {
  const results = await Promise.all(PARTS.map(({ name, script, args }) => runPart(name, script, args).then(report)));
  return results.every(({ ok }) => ok);
}

function report(result: Result): Result {
  const { name, ok, ms, output, note } = result;
  const sign = ok ? styleText("green", "✔") : styleText("red", "✖");
  const warnings = ok ? output.split("\n").filter((line) => / warning: |^skipped: /.test(line)) : [output.trimEnd()];
  console.log(`${sign} ${name.padEnd(16)} ${(ms / 1000).toFixed(1).padStart(5)} s  ${note}`);
  for (const line of warnings) {
    console.log(line);
  }
  return result;
}

async function main(): Promise<number> {
  const start = performance.now();
  const [sources, units] = await Promise.all([checkSources(), runUnitTests().then(report)]);
  const ok = sources && units.ok;
  console.log(`check: ${ok ? "all in order" : "failed"} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  return ok ? 0 : 1;
}

if (import.meta.main) {
  process.exitCode = await main();
}
