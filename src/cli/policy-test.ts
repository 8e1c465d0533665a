import { writeFileSync } from "node:fs";
import { type Command, Option } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { coverageOf } from "../core/policy/testing/coverage.ts";
import { junit } from "../core/policy/testing/junit.ts";
import { mutate } from "../core/policy/testing/mutation.ts";
import { type RunOptions, runSuite, type Suite } from "../core/policy/testing/run.ts";
import { tap } from "../core/policy/testing/tap.ts";
import { duration, percent } from "./arguments.ts";
import { jwksOption, keySource } from "./policy-jwks.ts";
import { meshOptions } from "./policy-mesh.ts";
import { readSuites } from "./policy-suites.ts";
import { resultDocument, resultText, shortfalls, type TestFlags, type TestRun } from "./policy-test-text.ts";
import { note, print, printJson } from "./ui.ts";

const EXAMPLES = `
Examples:
  everyhop policy test examples/payments
  everyhop policy test tests/ --junit report.xml --min-coverage 100
  everyhop policy test . --mutate --min-mutation-score 90
`;

export function defineTest(policy: Command): void {
  jwksOption(
    meshOptions(
      policy
        .command("test")
        .description(
          "run `kind: PolicyTest` documents: requests and the decisions they should get, with coverage per rule",
        )
        .argument("[path...]", "files and folders of tests, and of resources for tests that name none", ["."]),
    ),
  )
    .option("--filter <text>", "only tests whose name, or whose PolicyTest's name, has this in it")
    .option("--coverage", "list every rule, field and value with how often it was met")
    .option("--min-coverage <percent>", "fail where fewer rules than this were matched", percent)
    .option("--min-field-coverage <percent>", "fail where fewer fields than this had a value met", percent)
    .option("--mutate", "break each rule in turn, and say which breaks no test notices")
    .addOption(
      new Option("--mutate-timeout <duration>", "time for --mutate; what is left then is reported as not run")
        .argParser(duration)
        .default(60_000, "1m"),
    )
    .option(
      "--min-mutation-score <percent>",
      "fail where fewer mutants than this were noticed; implies --mutate",
      percent,
    )
    .option("--junit <file>", "write JUnit XML to this file")
    .addOption(new Option("--format <format>", "on standard output").choices(["text", "junit", "tap"]).default("text"))
    .option("--json", "one JSON document")
    .addHelpText("after", EXAMPLES)
    .action((paths: string[], flags: TestFlags) => {
      process.exitCode = test(paths, flags);
    });
}

function test(paths: readonly string[], flags: TestFlags): number {
  if (flags.json && flags.format !== "text") {
    throw new EveryhopError("usage", "--json and --format exclude each other");
  }
  const suites = readSuites(paths, flags);
  const now = Date.now();
  const run = runAll(suites, flags, { now: () => now, keysOf: keySource(flags) });
  const missing = shortfalls(run, flags);
  if (flags.junit !== undefined) {
    writeReport(flags.junit, junit(run.results));
  }
  if (flags.json) {
    printJson(resultDocument(run, missing));
  } else if (flags.format !== "text") {
    process.stdout.write(flags.format === "junit" ? junit(run.results) : tap(run.results));
    missing.forEach(note);
  } else {
    print(resultText(run, flags, missing));
  }
  return run.results.every(({ ok }) => ok) && missing.length === 0 ? 0 : 1;
}

function runAll(suites: readonly Suite[], flags: TestFlags, options: RunOptions): TestRun {
  const runs = suites.map((suite) => ({ suite, results: runSuite(suite, options) }));
  const wantsMutants = flags.mutate === true || flags.minMutationScore !== undefined;
  const deadline = performance.now() + flags.mutateTimeout;
  return {
    results: runs.flatMap(({ results }) => results),
    coverage: coverageOf(runs, options),
    mutation: wantsMutants
      ? mutate(runs, { ...options, isOver: () => performance.now() > deadline, progress: showProgress() })
      : null,
  };
}

const PROGRESS_EVERY_MS = 1_000;

/** A line on standard error now and then: a large set takes its time. */
function showProgress(): (done: number, total: number) => void {
  let last = performance.now();
  return (done, total) => {
    const now = performance.now();
    if (now - last >= PROGRESS_EVERY_MS) {
      last = now;
      note(`${done} of ${total} mutants`);
    }
  };
}

function writeReport(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot write \`${file}\`: ${(error as Error).message}`);
  }
}
