/** Runs test files phase by phase with node:test, as one report: failures, then node's own summary over all phases. */
import { resolve } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";

export interface Phase {
  readonly files: readonly string[];
  /** How many files run at once. */
  readonly concurrency: number;
  /** Only failures and skips are printed. */
  readonly quiet: boolean;
}

export interface Skip {
  readonly file: string;
  readonly test: string;
  /** As given to `t.skip()`; "" where none was. */
  readonly reason: string;
}

export interface Outcome {
  readonly counts: Readonly<Record<string, number>>;
  readonly failed: boolean;
  readonly skips: readonly Skip[];
  /** Test files with their duration, slowest first. */
  readonly slowest: readonly { readonly file: string; readonly ms: number }[];
}

/** The lines of node's summary, in its order. */
const SUMMARY = ["tests", "suites", "pass", "fail", "cancelled", "skipped", "todo", "duration_ms"];
const SUMMARY_LINE = new RegExp(`^(${SUMMARY.join("|")}) ([\\d.]+)$`);

interface Event {
  readonly type: string;
  readonly data: {
    readonly name?: string;
    readonly file?: string;
    readonly nesting?: number;
    readonly message?: string;
    readonly skip?: string | boolean;
    readonly duration_ms?: number;
  };
}

class Report {
  readonly #reporter = spec();
  readonly #counts: Record<string, number> = Object.fromEntries(SUMMARY.map((name) => [name, 0]));
  readonly #skips: Skip[] = [];
  readonly #files: { file: string; ms: number }[] = [];
  readonly #root: string;

  constructor(root: string, output: NodeJS.WritableStream) {
    this.#root = root;
    this.#reporter.pipe(output, { end: false });
  }

  take(event: Event, quiet: boolean): void {
    const { type, data } = event;
    const summary = type === "test:diagnostic" && data.nesting === 0 ? SUMMARY_LINE.exec(data.message ?? "") : null;
    if (summary !== null) {
      this.#counts[summary[1] as string] = (this.#counts[summary[1] as string] ?? 0) + Number(summary[2]);
      return;
    }
    const skipped = type === "test:pass" && data.skip !== undefined && data.skip !== false;
    if (skipped) {
      const reason = typeof data.skip === "string" ? data.skip : "";
      this.#skips.push({ file: this.#relative(data.file ?? ""), test: data.name ?? "", reason });
    }
    if (type === "test:summary" && data.file !== undefined) {
      this.#files.push({ file: this.#relative(data.file), ms: data.duration_ms ?? 0 });
    }
    // The reporter matches each start with its end; where passes are not shown, starts are not either.
    const shown = !quiet || skipped || (type !== "test:start" && type !== "test:pass");
    if (shown) {
      this.#reporter.write(event);
    }
  }

  /** Writes what `closing` says of the outcome, then the summary. */
  async end(closing: (outcome: Outcome) => readonly string[]): Promise<Outcome> {
    const { fail = 0, cancelled = 0 } = this.#counts;
    const outcome: Outcome = {
      counts: this.#counts,
      failed: fail + cancelled > 0,
      skips: this.#skips,
      slowest: this.#files.sort((a, b) => b.ms - a.ms),
    };
    const summary = SUMMARY.map((name) => `${name} ${this.#counts[name]}`);
    for (const message of [...closing(outcome), ...summary]) {
      this.#reporter.write({ type: "test:diagnostic", data: { nesting: 0, message } });
    }
    const flushed = new Promise((done) => this.#reporter.once("end", done));
    this.#reporter.end();
    await flushed;
    return outcome;
  }

  #relative(file: string): string {
    return file.startsWith(`${this.#root}/`) ? file.slice(this.#root.length + 1) : file;
  }
}

/** Longest that one test may take, in milliseconds: a hang becomes a failure with a name. */
const TEST_TIMEOUT_MS = 300_000;

export async function runTests(
  phases: readonly Phase[],
  options: {
    readonly root: string;
    readonly output: NodeJS.WritableStream;
    /** Lines to print before the summary. */
    readonly closing?: (outcome: Outcome) => readonly string[];
  },
): Promise<Outcome> {
  const report = new Report(options.root, options.output);
  for (const { files, concurrency, quiet } of phases) {
    if (files.length > 0) {
      const events = run({
        files: files.map((file) => resolve(options.root, file)),
        cwd: options.root,
        concurrency,
        timeout: TEST_TIMEOUT_MS,
      });
      for await (const event of events as AsyncIterable<Event>) {
        report.take(event, quiet);
      }
    }
  }
  return report.end(options.closing ?? (() => []));
}
