import { hash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { EveryhopError } from "../../core/base/errors.ts";

/** A segment of the log, as it is on disk; `hash` and `records` are those after its last line. */
export interface Segment {
  /** Offset of its first octet in the whole log. */
  readonly start: number;
  readonly size: number;
  readonly hash: string;
  readonly records: number;
  /** When the last of what it tells of expires. */
  readonly latestMs: number;
}

export const NO_HASH = "0".repeat(64);
const CHAIN = /^(.*),"chain":"([0-9a-f]{64})"}$/s;
const NEWLINE = 0x0a;

/** The hash in a line: of the one before and all of the line but the hash itself. */
export function chained(before: string, body: string): string {
  return hash("sha256", before + body, "hex");
}

/** A line of the log, without its newline. */
export function chainedLine(body: string, chain: string): string {
  return `${body.slice(0, -1)},"chain":"${chain}"}`;
}

/**
 * Reads and checks a segment; `before` is the one that it follows, null for the oldest that is kept. What comes after its last
 * newline is no line: `cutBytes`. Errors: `storage-failed` where a line does not follow from the one before.
 */
export async function readSegment(options: {
  readonly file: string;
  readonly title: string;
  readonly start: number;
  readonly before: Segment | null;
  readonly onLine: (line: string) => void;
}): Promise<{ readonly segment: Segment; readonly cutBytes: number }> {
  const { file, title, start, before, onLine } = options;
  const bytes = await readFile(file);
  let [chain, records, latestMs] = [before?.hash ?? NO_HASH, before?.records ?? 0, 0];
  let at = 0;
  for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, at)) {
    const line = bytes.toString("utf8", at, end);
    const [, head, found] = CHAIN.exec(line) ?? [];
    if (head === undefined) {
      throw broken(title, file, `at octet ${at} stands no line of it`);
    }
    const body = `${head}}`;
    if (at === 0 && before === null && start > 0) {
      // The segments before it told of nothing that lives, and were dropped: its first line says what they ended with.
      chain = member(body, "before") ?? "";
      records = Number(member(body, "n")) - 1;
    }
    records++;
    chain = chained(chain, body);
    if (chain !== found || Number(member(body, "n")) !== records) {
      throw broken(title, file, `its line ${records} does not follow from the one before`);
    }
    latestMs = Math.max(latestMs, Number(member(body, "until") ?? 0));
    onLine(line);
    at = end + 1;
  }
  return { segment: { start, size: at, hash: chain, records, latestMs }, cutBytes: bytes.length - at };
}

/** A member of a line that we wrote ourselves. HOT at start: parsing all of the JSON would cost five times as much. */
export function member(line: string, name: string): string | null {
  const key = `"${name}":`;
  const from = line.indexOf(key);
  if (from < 0) {
    return null;
  }
  const text = line.slice(from + key.length, from + key.length + 130);
  return /^(?:"([^"]*)"|(-?\d+))/.exec(text)?.slice(1).find(Boolean) ?? null;
}

export function broken(title: string, place: string, why: string): EveryhopError {
  return new EveryhopError("storage-failed", `${title} \`${place}\` is not as it was written: ${why}`, {
    hint: "somebody changed it, or the disk did: keep it for an inquiry, and restore the folder from a backup; nothing is done without it",
  });
}
