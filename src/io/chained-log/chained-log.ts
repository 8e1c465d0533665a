/**
 * A log that shows when it was changed: a line of JSON for each thing that was done, each with the hash of all before it, and on
 * disk before `append` resolves. Segments are named by the offset of their first octet in the whole, so a place in it is one number.
 */
import { type FileHandle, mkdir, open, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { EveryhopError } from "../../core/base/errors.ts";
import { broken, chained, chainedLine, NO_HASH, readSegment, type Segment } from "./segment.ts";

/** What a line says, beside its number, its time and its hash. `until` is when what it tells of expires, in ms. */
export type LogEntry = { readonly kind: string; readonly [name: string]: unknown };

/** Whole lines, without their newlines, and where the next page begins; null at the end. */
export interface LogPage {
  readonly lines: readonly string[];
  readonly next: number | null;
}

export interface LogOptions {
  readonly dir: string;
  /** What its files are named after: `NAME-OFFSET.jsonl`. */
  readonly name: string;
  /** How errors call it, as `the signer's log`. */
  readonly title: string;
  readonly now: () => number;
  /** Each line there already, in order. */
  readonly onLine: (line: string) => void;
  /** Default 64 MiB. */
  readonly segmentBytes?: number;
  /** How long a segment is kept after all that it tells of has expired. Default 14 days. */
  readonly keepMs?: number;
}

const PAGE_BYTES = 512 * 1024;
const DAY = 86_400_000;

const fileOf = ({ dir, name }: LogOptions, start: number): string =>
  join(dir, `${name}-${String(start).padStart(16, "0")}.jsonl`);

export class ChainedLog {
  /** Octets of an unfinished last line that were cut off when it was opened. */
  readonly repairedBytes: number;
  readonly #options: LogOptions;
  /** The last is written to; never empty. */
  #segments: readonly Segment[];
  #file: FileHandle;
  #waiting: LogEntry[] = [];
  #flushed: Promise<void> = Promise.resolve();

  private constructor(options: LogOptions, segments: readonly Segment[], file: FileHandle, repairedBytes: number) {
    this.#options = options;
    this.#segments = segments;
    this.#file = file;
    this.repairedBytes = repairedBytes;
  }

  /**
   * Opens the log in its folder, or begins one. Errors: `storage-failed` where a line is not the successor of the one before:
   * then it was changed, and nothing may be signed.
   */
  static async open(options: LogOptions): Promise<ChainedLog> {
    const { dir } = options;
    try {
      await mkdir(dir, { recursive: true, mode: 0o700 });
      const { segments, cutBytes } = await readAll(options);
      const last = segments.at(-1) as Segment;
      const file = await open(fileOf(options, last.start), "a", 0o600);
      if (cutBytes > 0) {
        await file.truncate(last.size);
        await file.sync();
      }
      const log = new ChainedLog(options, segments, file, cutBytes);
      if (cutBytes > 0) {
        await log.append([{ kind: "repaired", cutBytes }]);
      }
      return log;
    } catch (error) {
      throw failed(options, error);
    }
  }

  /**
   * Reads all that is on disk and checks it, beside whoever writes. What its last line lacks is being written.
   * Errors: `storage-failed` where a line is not the successor of the one before.
   */
  static async check(options: LogOptions): Promise<void> {
    try {
      await readAll(options);
    } catch (error) {
      throw failed(options, error);
    }
  }

  get records(): number {
    return this.#last.records;
  }

  get #last(): Segment {
    return this.#segments.at(-1) as Segment;
  }

  /** Resolves once they are on disk; what comes meanwhile shares the next write. Errors: `storage-failed`: the log is done for. */
  append(entries: readonly LogEntry[]): Promise<void> {
    this.#waiting.push(...entries);
    this.#flushed = this.#flushed.then(() => this.#flush());
    return this.#flushed;
  }

  /** Whole lines from `after` on, at most about half a megabyte. */
  async page(after: number): Promise<LogPage> {
    const end = this.#last.start + this.#last.size;
    const segment = this.#segments.findLast(({ start }) => start <= after) ?? (this.#segments[0] as Segment);
    const from = Math.max(after, segment.start);
    const file = await open(fileOf(this.#options, segment.start), "r");
    try {
      const chunk = Buffer.alloc(Math.max(0, Math.min(PAGE_BYTES, segment.start + segment.size - from)));
      const { bytesRead } = await file.read(chunk, 0, chunk.length, from - segment.start);
      const whole = chunk.subarray(0, bytesRead).lastIndexOf("\n") + 1;
      const lines = whole === 0 ? [] : chunk.toString("utf8", 0, whole - 1).split("\n");
      return { lines, next: whole === 0 || from + whole >= end ? null : from + whole };
    } finally {
      await file.close();
    }
  }

  async close(): Promise<void> {
    await this.#flushed.catch(() => {});
    await this.#file.close();
  }

  async #flush(): Promise<void> {
    if (this.#waiting.length === 0) {
      return;
    }
    try {
      if (this.#last.size >= (this.#options.segmentBytes ?? 64 * 1024 * 1024)) {
        await this.#beginSegment();
      }
      const { text, segment } = this.#written(this.#waiting.splice(0));
      await this.#file.appendFile(text);
      await this.#file.datasync();
      this.#segments = [...this.#segments.slice(0, -1), segment];
    } catch (error) {
      throw failed(this.#options, error);
    }
  }

  /** HOT: per issuance. */
  #written(entries: readonly LogEntry[]): { readonly text: string; readonly segment: Segment } {
    let { hash, records, latestMs, size, start } = this.#last;
    const at = new Date(this.#options.now()).toISOString();
    let text = "";
    for (const entry of entries) {
      const body = JSON.stringify({ n: ++records, at, ...entry });
      hash = chained(hash, body);
      text += `${chainedLine(body, hash)}\n`;
      latestMs = Math.max(latestMs, typeof entry.until === "number" ? entry.until : 0);
    }
    size += Buffer.byteLength(text);
    return { text, segment: { start, size, hash, records, latestMs } };
  }

  /** Begins the next, and drops those that tell of nothing that lives. */
  async #beginSegment(): Promise<void> {
    const { keepMs = 14 * DAY, now } = this.#options;
    const ended = this.#last;
    const next = { ...ended, start: ended.start + ended.size, size: 0, latestMs: 0 };
    const file = await open(fileOf(this.#options, next.start), "a", 0o600);
    await this.#file.close();
    this.#file = file;
    this.#waiting.unshift({ kind: "segment", before: ended.hash });
    const lives = this.#segments.findIndex(({ latestMs }) => latestMs >= now() - keepMs);
    const dropped = this.#segments.slice(0, lives < 0 ? this.#segments.length : lives);
    this.#segments = [...this.#segments.slice(dropped.length), next];
    for (const { start } of dropped) {
      await unlink(fileOf(this.#options, start));
    }
  }
}

async function readAll(options: LogOptions): Promise<{ segments: readonly Segment[]; cutBytes: number }> {
  const { dir, name, title, onLine } = options;
  const starts = (await readdir(dir))
    .filter((file) => file.startsWith(`${name}-`))
    .flatMap((file) => /^-(\d{16})\.jsonl$/.exec(file.slice(name.length))?.[1] ?? [])
    .map(Number);
  const segments: Segment[] = [];
  let cutBytes = 0;
  for (const start of starts.sort((left, right) => left - right)) {
    const before = segments.at(-1) ?? null;
    if (before !== null && (before.start + before.size !== start || cutBytes > 0)) {
      throw broken(title, dir, `what stands before octet ${start} is not whole`);
    }
    const read = await readSegment({ file: fileOf(options, start), title, start, before, onLine });
    segments.push(read.segment);
    cutBytes = read.cutBytes;
  }
  if (segments.length === 0) {
    segments.push({ start: 0, size: 0, hash: NO_HASH, records: 0, latestMs: 0 });
  }
  return { segments, cutBytes };
}

function failed({ dir, title }: LogOptions, cause: unknown): EveryhopError {
  if (cause instanceof EveryhopError) {
    return cause;
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  return new EveryhopError("storage-failed", `${title} \`${dir}\` cannot be used: ${why}`, {
    cause,
    hint: "make room on its disk, and let the folder belong to the user who runs the server",
  });
}
