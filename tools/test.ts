/**
 * npm test: the checks of `npm run check`, then every test: those beside the sources, then test/**. Needs no root; suites that
 * do say so and skip. At the end: every skip by name, the slowest suites, and node's own summary over everything.
 *
 *   node tools/test.ts [--strict-skips] [FILE…]     with files: only these, in full
 *
 * CI=true is --strict-skips: a skip that test/skips.json does not allow fails the run.
 */
import { globSync, readFileSync } from "node:fs";
import { styleText } from "node:util";
import { type PeerName, peer } from "../test/peers.ts";
import { checkSources, unitPhase } from "./check.ts";
import { type Outcome, type Phase, runTests, type Skip } from "./run-tests.ts";
import { type AllowedSkip, deadEntries, judgeSkips } from "./skips.ts";

const ROOT = process.cwd();

/**
 * Suites that look at what is left on the whole machine (network namespaces, processes), or attack a mesh for all they can: one
 * at a time. All others share it, and mostly wait: for certificates to age, for processes to start.
 */
const ALONE = /^test\/(flows\/(attack|bad-input|isolated|ordinary-user|readme|up)|interop\/prometheus-mesh)\.test\.ts$/;

/** The longest begin first, so that no lane is left with one of them at the end. */
const LONGEST = [
  "test/flows/live.test.ts",
  "test/trust.test.ts",
  "test/flows/recover.test.ts",
  "test/cli/server-admin.test.ts",
];

function suitePhases(): Phase[] {
  const files = globSync("test/**/*.test.ts").sort();
  const alone = files.filter((file) => ALONE.test(file));
  const others = files.filter((file) => !ALONE.test(file) && !LONGEST.includes(file));
  return [
    { files: [...LONGEST, ...others], concurrency: 3, quiet: false },
    { files: alone, concurrency: 1, quiet: false },
  ];
}

interface SkipReport {
  readonly lines: readonly string[];
  /** How many are not in order. */
  readonly faults: number;
}

function reportSkips(skips: readonly Skip[], strict: boolean): SkipReport {
  const allowed = JSON.parse(readFileSync(`${ROOT}/test/skips.json`, "utf8")) as AllowedSkip[];
  const judged = judgeSkips(skips, allowed, (name) => peer(name as PeerName) !== null);
  const lines = judged.map(({ file, test, reason, fault }) => {
    const objection = fault === null || !strict ? "" : styleText("red", ` ✖ ${fault}`);
    return `skipped: ${file}: ${test}: ${reason || "no reason given"}${objection}`;
  });
  const dead = deadEntries(allowed, globSync(["src/**/*.test.ts", "test/**/*.test.ts"]));
  lines.push(...dead.map(({ suite }) => styleText("red", `✖ test/skips.json names \`${suite}\`, which is not there`)));
  const faults = judged.filter(({ fault }) => fault !== null).length;
  return { lines, faults: dead.length + (strict ? faults : 0) };
}

function slowestLines({ slowest }: Outcome): string[] {
  return slowest.slice(0, 5).map(({ file, ms }) => `slow: ${file}: ${(ms / 1000).toFixed(1)} s`);
}

async function main(args: readonly string[]): Promise<number> {
  const strict = args.includes("--strict-skips") || /^(true|1)$/.test(process.env.CI ?? "");
  const named = args.filter((argument) => !argument.startsWith("--"));
  const checked = named.length > 0 || (await checkSources());
  const phases: Phase[] =
    named.length === 0 ? [unitPhase(), ...suitePhases()] : [{ files: named, concurrency: 1, quiet: false }];
  let faults = 0;
  const outcome = await runTests(phases, {
    root: ROOT,
    output: process.stdout,
    closing(ended) {
      const skips = reportSkips(ended.skips, strict);
      faults = skips.faults;
      return [
        ...slowestLines(ended),
        ...skips.lines,
        ...(checked ? [] : [styleText("red", "✖ the checks above failed")]),
      ];
    },
  });
  return checked && !outcome.failed && faults === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
